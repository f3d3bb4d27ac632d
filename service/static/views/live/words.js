// Codes of answers, in words.

const MEANINGS = {
  400: "the bytes are no request, or not what they say they are",
  401: "no key, or none of this server's",
  404: "no such model or address",
  405: "the address has no such method",
  406: "no media type that the call can answer with",
  408: "the request came too slowly",
  413: "more rows or bytes than a request may have",
  415: "a media type that is not read",
  422: "rows or fields that the model cannot take",
  429: "refused: the queue was full, or too slow",
  431: "the head of the request is too long",
  499: "the client went away before it was answered",
  500: "a fault of the server: its log says which",
  503: "not ready: loading, or ending",
  504: "the deadline of the request passed",
};

export const meaning = code => MEANINGS[code] ?? "";
