// JSON as text in coloured pieces.

const PARTS = /("(?:[^"\\]|\\.)*")(\s*:)?|-?\d+(?:\.\d+)?|\b(?:true|false|null)\b/g;

/** Return what shows the JSON *text*: nodes and texts, to put into an element. */
export function colouredJson(text) {
  const pieces = [];
  let end = 0;
  for (const match of text.matchAll(PARTS)) {
    const [all, quoted, colon] = match;
    const piece = document.createElement("span");
    piece.className = colon ? "json-key" : quoted ? "json-text" : "json-value";
    piece.textContent = colon ? quoted : all;
    pieces.push(text.slice(end, match.index), piece);
    end = match.index + (colon ? quoted.length : all.length);
  }
  return [...pieces, text.slice(end)];
}
