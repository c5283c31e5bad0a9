// Asking for the API key of a server that wants one.

import { hasKey, keepKey } from "./api.js";
import { byId } from "./dom.js";

/** Ask for a key, unless that is being done; `done` is called once there is one. */
export function askKey(done) {
  const dialog = byId("key");
  if (dialog.open) return;
  if (hasKey()) byId("key-why").textContent = "The server does not know the key that was given; give another.";
  byId("key-value").value = "";
  byId("key-form").onsubmit = (event) => {
    event.preventDefault();
    keepKey(byId("key-value").value.trim());
    dialog.close();
    done();
  };
  dialog.showModal();
}
