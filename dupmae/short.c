/* The layers of a network for a dozen tokens. short.py says what each function means. Such a text
 * takes as long as the weights take to come from memory, so these are read as they are stored, in
 * 16 bits, once for all tokens. Plain C without Python: ctypes calls it. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__)

#include <immintrin.h>

#define WITH_512 __attribute__((target("avx512f,fma,f16c")))
#define WITH_256 __attribute__((target("avx2,fma,f16c")))
#define BEST_OF_CPU __attribute__((target_clones("avx512f", "avx2", "default")))
#define UNROLL _Pragma("GCC unroll 16")

enum {
    PANEL = 32,   /* columns whose weights lie together, row by row */
    AHEAD = 2048, /* weights that are on their way while others are multiplied */
};

typedef float lanes16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef float lanes8 __attribute__((vector_size(32), aligned(4), may_alias));

int supported(void) {
    if (__builtin_cpu_supports("avx512f")) return 2;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

WITH_512 static inline lanes16 widen16(const uint16_t *halves) {
    return (lanes16)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)halves));
}

WITH_256 static inline lanes8 widen8(const uint16_t *halves) {
    return (lanes8)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)halves));
}

/* Products of ROWS inputs with two vectors of columns of one panel: all sums stay in registers. */
#define TILE(NAME, TARGET, VECTOR, LANES, WIDEN, ROWS)                                             \
    TARGET static void NAME(const float *x, int64_t inputs, const uint16_t *panel,                 \
                            const float *bias, float *y, int64_t outputs) {                        \
        VECTOR sums[ROWS][2];                                                                      \
        UNROLL for (int r = 0; r < ROWS; r++) {                                                    \
            sums[r][0] = *(const VECTOR *)bias;                                                    \
            sums[r][1] = *(const VECTOR *)(bias + LANES);                                          \
        }                                                                                          \
        for (int64_t k = 0; k < inputs; k++) {                                                     \
            VECTOR first = WIDEN(panel + k * PANEL), second = WIDEN(panel + k * PANEL + LANES);    \
            __builtin_prefetch(panel + k * PANEL + AHEAD);                                         \
            UNROLL for (int r = 0; r < ROWS; r++) {                                                \
                sums[r][0] += x[r * inputs + k] * first;                                           \
                sums[r][1] += x[r * inputs + k] * second;                                          \
            }                                                                                      \
        }                                                                                          \
        UNROLL for (int r = 0; r < ROWS; r++) {                                                    \
            *(VECTOR *)(y + r * outputs) = sums[r][0];                                             \
            *(VECTOR *)(y + r * outputs + LANES) = sums[r][1];                                     \
        }                                                                                          \
    }

#define TILE_16(ROWS) TILE(tile16x##ROWS, WITH_512, lanes16, 16, widen16, ROWS)
#define TILE_8(ROWS) TILE(tile8x##ROWS, WITH_256, lanes8, 8, widen8, ROWS)
TILE_16(1) TILE_16(2) TILE_16(4) TILE_16(8) TILE_16(12) TILE_16(14)
TILE_8(1) TILE_8(2) TILE_8(4) TILE_8(6)

/* Apply a tile to as many rows as it takes at a time, while there are so many. */
#define ROWS_BY(COUNT, TILE)                                                                       \
    for (; rows - r >= COUNT; r += COUNT)                                                          \
        TILE(x + r * inputs, inputs, panel, bias + column, y + r * outputs + column, outputs);

void product16(const float *x, int64_t rows, int64_t inputs, const uint16_t *weights,
                      const float *bias, float *y, int64_t outputs) {
    for (int64_t column = 0; column < outputs; column += PANEL) {
        const uint16_t *panel = weights + column * inputs;
        int64_t r = 0;
        if (rows % 12) ROWS_BY(14, tile16x14)
        ROWS_BY(12, tile16x12)
        ROWS_BY(8, tile16x8)
        ROWS_BY(4, tile16x4)
        ROWS_BY(2, tile16x2)
        ROWS_BY(1, tile16x1)
    }
}

void product8(const float *x, int64_t rows, int64_t inputs, const uint16_t *weights,
                     const float *bias, float *y, int64_t outputs) {
    for (int64_t column = 0; column < outputs; column += PANEL / 2) {
        const uint16_t *panel = weights + column / PANEL * PANEL * inputs + column % PANEL;
        int64_t r = 0;
        ROWS_BY(6, tile8x6)
        ROWS_BY(4, tile8x4)
        ROWS_BY(2, tile8x2)
        ROWS_BY(1, tile8x1)
    }
}

void product(const float *x, int64_t rows, int64_t inputs, const uint16_t *weights,
             const float *bias, float *y, int64_t outputs) {
    (supported() == 2 ? product16 : product8)(x, rows, inputs, weights, bias, y, outputs);
}

/* The largest product of each wanted word with any of the rows, four rows at a time. */
#define POOL(NAME, TARGET, VECTOR, LANES, WIDEN)                                                   \
    TARGET void NAME(const float *x, int64_t rows, int64_t size, const uint16_t *words,            \
                     const int64_t *wanted, int64_t count, float *maxima) {                        \
        for (int64_t n = 0; n < count; n++) {                                                      \
            const uint16_t *word = words + wanted[n] * size;                                       \
            maxima[n] = -INFINITY;                                                                 \
            for (int64_t r = 0; r < rows; r += 4) {                                                \
                const float *row[4];                                                               \
                VECTOR sums[4] = {{0}};                                                            \
                for (int i = 0; i < 4; i++) row[i] = x + (r + i < rows ? r + i : r) * size;        \
                for (int64_t k = 0; k < size; k += LANES) {                                        \
                    VECTOR part = WIDEN(word + k);                                                 \
                    UNROLL for (int i = 0; i < 4; i++)                                             \
                        sums[i] += *(const VECTOR *)(row[i] + k) * part;                           \
                }                                                                                  \
                for (int i = 0; i < 4; i++) {                                                      \
                    float sum = 0;                                                                 \
                    for (int lane = 0; lane < LANES; lane++) sum += sums[i][lane];                 \
                    if (sum > maxima[n]) maxima[n] = sum;                                          \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
    }

POOL(pool16, WITH_512, lanes16, 16, widen16)
POOL(pool8, WITH_256, lanes8, 8, widen8)

void pool(const float *x, int64_t rows, int64_t size, const uint16_t *words, const int64_t *wanted,
          int64_t count, float *maxima) {
    (supported() == 2 ? pool16 : pool8)(x, rows, size, words, wanted, count, maxima);
}

/* GELU by a quotient of polynomials for erf, fitted to 4e-7 up to 4, where erf is 1. */
BEST_OF_CPU
void gelu(float *x, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        float wide = x[i] * 0.70710678f;
        float z = wide < -4 ? -4 : wide > 4 ? 4 : wide;
        float t = z * z;
        float p = 1.92167953e-08f;
        p = p * t - 1.99016222e-06f;
        p = p * t + 0.000155509959f;
        p = p * t + 0.00429207226f;
        p = p * t + 0.0524305217f;
        p = p * t + 0.213922635f;
        p = p * t + 1.12837863f;
        float q = 0.00109778834f;
        q = q * t + 0.015549168f;
        q = q * t + 0.120790467f;
        q = q * t + 0.522911668f;
        q = q * t + 1;
        float erf = wide < -4 ? -1 : wide > 4 ? 1 : z * p / q;
        x[i] = 0.5f * x[i] * (1 + erf);
    }
}

BEST_OF_CPU
void add_and_normalise(float *x, const float *y, int64_t rows, int64_t size, const float *weight,
                       const float *bias, float epsilon) {
    for (int64_t r = 0; r < rows; r++) {
        float *row = x + r * size;
        lanes16 sums = {0}, squares = {0};
        if (y != NULL)
            for (int64_t i = 0; i < size; i++) row[i] += y[r * size + i];
        for (int64_t i = 0; i < size; i += 16) sums += *(const lanes16 *)(row + i);
        float mean = 0, variance = 0;
        for (int i = 0; i < 16; i++) mean += sums[i];
        mean /= (float)size;
        for (int64_t i = 0; i < size; i += 16) {
            lanes16 off = *(const lanes16 *)(row + i) - mean;
            squares += off * off;
        }
        for (int i = 0; i < 16; i++) variance += squares[i];
        float scale = 1 / sqrtf(variance / (float)size + epsilon);
        for (int64_t i = 0; i < size; i++) row[i] = (row[i] - mean) * scale * weight[i] + bias[i];
    }
}

BEST_OF_CPU
void attend(const float *restrict qkv, int64_t rows, int64_t heads, int64_t size,
            float *restrict keys, float *restrict shares, float *restrict y) {
    int64_t hidden = heads * size;
    float scale = 1 / sqrtf((float)size);
    for (int64_t head = 0; head < heads; head++) {
        const float *own = qkv + head * size;
        for (int64_t j = 0; j < rows; j++)
            for (int64_t d = 0; d < size; d++) keys[d * rows + j] = own[(3 * j + 1) * hidden + d];
        for (int64_t i = 0; i < rows; i++) {
            const float *query = own + 3 * i * hidden;
            float *out = y + i * hidden + head * size;
            for (int64_t j = 0; j < rows; j++) shares[j] = 0;
            for (int64_t d = 0; d < size; d++) {
                float factor = query[d] * scale;
                for (int64_t j = 0; j < rows; j++) shares[j] += factor * keys[d * rows + j];
            }
            float most = shares[0], sum = 0;
            for (int64_t j = 1; j < rows; j++) most = shares[j] > most ? shares[j] : most;
            for (int64_t j = 0; j < rows; j++) sum += shares[j] = expf(shares[j] - most);
            for (int64_t d = 0; d < size; d++) out[d] = 0;
            for (int64_t j = 0; j < rows; j++) {
                const float *value = own + (3 * j + 2) * hidden;
                float share = shares[j] / sum;
                for (int64_t d = 0; d < size; d++) out[d] += share * value[d];
            }
        }
    }
}

#else

int supported(void) { return 0; }

#endif
