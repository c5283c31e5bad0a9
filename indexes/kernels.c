/* The loops of every search: two over all documents, two that score some exactly. kernels.py says
 * what each means and does the same in NumPy where no compiler was at hand. Plain C without Python:
 * ctypes calls it, and several threads may, each on its own documents. */

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__)
#define BEST_OF_CPU __attribute__((target_clones("avx2", "default")))
#else
#define BEST_OF_CPU
#endif

#if defined(__GNUC__)
#define FETCH(address) __builtin_prefetch(address)
#else
#define FETCH(address) (void)(address)
#endif

enum {
    HEAD = 64,
    MIDDLE = 128,
    BLOCK = 1 << 14, /* documents whose sums (64 KiB) stay in cache */
    LOOKED_AT = 256, /* documents whose heads are looked at before the middles of what is left */
};

/* What is read next, wherever it lies, is on its way while something else is computed. */
static inline void fetch(const void *start, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64) FETCH((const char *)start + i);
}

static int64_t first_from(const int32_t *ordinals, int64_t start, int64_t end, int64_t least) {
    while (start < end) {
        int64_t half = start + (end - start) / 2;
        if (ordinals[half] < least) start = half + 1;
        else end = half;
    }
    return start;
}

BEST_OF_CPU
void add_up(int32_t *restrict sums, int64_t low, int64_t high, int64_t documents,
            int64_t terms, const int32_t *restrict factors, const int64_t *restrict row_of_term,
            const uint8_t *restrict rows, int64_t *restrict starts, const int64_t *restrict ends,
            const int32_t *restrict ordinals, const uint8_t *restrict impacts) {
    for (int64_t t = 0; t < terms; t++) starts[t] = first_from(ordinals, starts[t], ends[t], low);
    for (int64_t first = low; first < high; first += BLOCK) {
        int64_t end = first + BLOCK < high ? first + BLOCK : high;
        memset(sums + first, 0, (size_t)(end - first) * sizeof *sums);
        for (int64_t t = 0; t < terms; t++) {
            int32_t factor = factors[t];
            if (row_of_term[t] >= 0) {
                const uint8_t *row = rows + row_of_term[t] * documents;
                for (int64_t i = first; i < end; i++) sums[i] += factor * row[i];
                continue;
            }
            /* Without a sign, an ordinal that damage made negative is none of these documents. */
            int64_t p = starts[t];
            for (uint32_t i; p < ends[t] && (i = (uint32_t)ordinals[p]) < (uint32_t)end; p++)
                sums[i] += factor * impacts[p];
            starts[t] = p;
        }
    }
}

static inline __attribute__((always_inline)) int32_t dot(const int8_t *restrict codes,
                                                         const int16_t *restrict query, int size) {
    int32_t sum = 0;
    for (int i = 0; i < size; i++) sum += codes[i] * query[i];
    return sum;
}

/* In 16 sums, which the compiler keeps in registers; `outline.py` bounds what any order rounds. */
static inline __attribute__((always_inline)) float product(const float *restrict a,
                                                           const float *restrict b, int64_t size) {
    float sums[16] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + 16 <= size; i += 16)
        for (int j = 0; j < 16; j++) sums[j] += a[i + j] * b[i + j];
    for (; i < size; i++) sum += a[i] * b[i];
    for (int j = 0; j < 16; j++) sum += sums[j];
    return sum;
}

BEST_OF_CPU
int64_t reach(int64_t low, int64_t high, const uint8_t *restrict allowed,
              const int32_t *restrict sums, const int8_t *restrict heads,
              const int8_t *restrict middles, const uint8_t *restrict rests,
              const float *restrict vectors, int64_t dim,
              const int16_t *restrict head, const int16_t *restrict middle,
              const float *restrict vector,
              const double *restrict scale, double least,
              int64_t *restrict found, double *restrict bounds) {
    int64_t count = 0, kept[LOOKED_AT];
    double bounded[LOOKED_AT];
    for (int64_t first = low; first < high; first += LOOKED_AT) {
        int64_t end = first + LOOKED_AT < high ? first + LOOKED_AT : high, left = 0;
        for (int64_t i = first; i < end; i++) {
            if (allowed && !allowed[i]) continue;
            double bound = scale[0] * sums[i];
            if (bound + scale[1] < least) continue;
            bound += scale[2] * dot(heads + i * HEAD, head, HEAD);
            if (bound + scale[3] * rests[2 * i] + scale[4] < least) continue;
            fetch(middles + i * MIDDLE, MIDDLE);
            kept[left] = i;
            bounded[left++] = bound;
        }
        for (int64_t j = 0; j < left; j++) {
            int64_t i = kept[j];
            double bound = bounded[j] + scale[5] * dot(middles + i * MIDDLE, middle, MIDDLE);
            bound += scale[6] * rests[2 * i + 1] + scale[7];
            if (bound < least) continue;
            if (vector) {
                double products = product(vectors + i * dim, vector, dim);
                bound = scale[0] * sums[i] + scale[8] * products + scale[9];
            }
            if (bound < least) continue;
            found[count] = i;
            bounds[count++] = bound;
        }
    }
    return count;
}

/* Summed as NumPy sums a row: halves, cut at a multiple of 8, of at most 128 values, these in 8
 * sums. Products are exact, so fusing them with the addition would change no bit. */
static inline __attribute__((always_inline)) double short_sum(const float *restrict a,
                                                              const double *restrict b, int64_t n) {
    double sums[8] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; j++) sums[j] += a[i + j] * b[i + j];
    sum = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
    for (; i < n; i++) sum += a[i] * b[i];
    return sum;
}

BEST_OF_CPU
static double pairwise_sum(const float *a, const double *b, int64_t n) {
    if (n <= 128) return short_sum(a, b, n);
    int64_t half = n / 2 - n / 2 % 8;
    return pairwise_sum(a, b, half) + pairwise_sum(a + half, b + half, n - half);
}

void score_dense(int64_t count, const int64_t *restrict ordinals, const float *restrict vectors,
                 int64_t dim, const double *restrict query, double *restrict scores) {
    for (int64_t i = 0; i < count; i++) {
        if (i + 1 < count) fetch(vectors + ordinals[i + 1] * dim, 4 * dim);
        scores[i] = pairwise_sum(vectors + ordinals[i] * dim, query, dim);
    }
}

/* A term that the query lacks adds 0, which changes no sum. */
void score_sparse(int64_t count, const int64_t *restrict ordinals, const int64_t *restrict indptr,
                  const int32_t *restrict terms, const float *restrict weights,
                  const double *restrict query, uint32_t size, double *restrict scores) {
    for (int64_t i = 0; i < count; i++) {
        if (i + 1 < count) {
            int64_t next = indptr[ordinals[i + 1]], bytes = 4 * (indptr[ordinals[i + 1] + 1] - next);
            fetch(terms + next, bytes);
            fetch(weights + next, bytes);
        }
        double sum = 0;
        for (int64_t p = indptr[ordinals[i]]; p < indptr[ordinals[i] + 1]; p++)
            if ((uint32_t)terms[p] < size) sum += query[terms[p]] * weights[p];
        scores[i] = sum;
    }
}
