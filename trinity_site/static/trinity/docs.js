// The documentation's examples in colour.

import { colouredJson } from "./json.js";

for (const example of document.querySelectorAll("[data-json]")) {
  example.replaceChildren(...colouredJson(example.textContent));
}
