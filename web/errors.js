/** What the caller can mend: a file that is missing or damaged, a text that is none. The message is one line. */
export class EdgeleafError extends Error {
  name = "EdgeleafError";
}
