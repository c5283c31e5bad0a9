// Requests to the server that the page came from: keys, errors, waiting, and answers in order.

import { WEIGHTS } from "./state.js";

const KEY = "dupmae-key";
const GONE_WAIT = 3;
const LONGEST_WAIT = 15;

/** What the server refused, or `status` 0 if it did not answer. */
export class ApiError extends Error {
  constructor(status, code, message, retryAfter = null) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }

  /** Whether the same request may well succeed a little later. */
  get passes() {
    return [0, 429, 503].includes(this.status);
  }
}

export const keepKey = (key) => sessionStorage.setItem(KEY, key);
export const hasKey = () => sessionStorage.getItem(KEY) !== null;

/** Ask once; resolves to the JSON that came, and throws `ApiError`. */
export async function request(path, { body = null, signal = null } = {}) {
  const headers = { Accept: "application/json" };
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body) headers["Content-Type"] = "application/json";
  const options = { method: body ? "POST" : "GET", headers, signal, body: body && JSON.stringify(body) };
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", "The server does not answer.");
  }
  const answer = await response.json().catch(() => null);
  if (response.ok && answer !== null) return answer;
  const { code = "unknown", message = `The server answered with status ${response.status}.` } = answer?.error ?? {};
  throw new ApiError(response.status, code, message, Number(response.headers.get("Retry-After")) || null);
}

/** Ask until the server is there and has time; `waiting` hears of each error in between. */
export async function patiently(ask, signal, waiting) {
  for (let tries = 0; ; tries += 1) {
    try {
      return await ask();
    } catch (error) {
      if (!error.passes) throw error;
      waiting(error);
      const seconds = error.retryAfter ?? (error.status ? 2 ** tries : GONE_WAIT);
      await pause(Math.min(seconds, LONGEST_WAIT), signal);
    }
  }
}

/** Runs one task at a time: a new one aborts the one before, whose outcome nobody hears of. */
export class Latest {
  #controller = new AbortController();

  cancel() {
    this.#controller.abort();
  }

  async run(task, done, failed) {
    this.cancel();
    const { signal } = (this.#controller = new AbortController());
    try {
      const result = await task(signal);
      if (!signal.aborted) done(result);
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      failed(error);
    }
  }
}

/** What a state asks: the body of a search in one of the three modes. */
export function searchBody(state, mode) {
  return { ...asked(state, mode), k: state.k, offset: state.offset, snippets: true };
}

/** The body of an explanation: of the same ranking, so its proof reaches to the page's last rank. */
export function explainBody(state, mode, id) {
  return { ...asked(state, mode), id, k: state.offset + state.k };
}

export const whereOf = (state) => state.where.trim() || null;
export const indexOf = (state) => state.index || null;

export function documentPath(state, id) {
  return `/documents/${encodeURIComponent(id)}${state.index ? `?index=${encodeURIComponent(state.index)}` : ""}`;
}

function asked(state, mode) {
  const [dense, sparse] = WEIGHTS[mode];
  return {
    query: state.q.trim(), where: whereOf(state), index: indexOf(state),
    dense_weight: dense, sparse_weight: sparse,
  };
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
