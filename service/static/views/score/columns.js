// Which columns of a file are the model's.

import { featureNames } from "../../page/shapes.js";
import { FileProblem, listed } from "./limits.js";

const plain = name => name.toLowerCase().replace(/[^a-z0-9]/g, "");

function missingOf(names, header) {
  const missing = names.filter(name => !header.includes(name));
  const [first] = missing;
  const near = header.find(name => plain(name) === plain(first));
  const hint = near === undefined ? "" : `; is ${JSON.stringify(near)} meant to be ${first}?`;
  return new FileProblem(`the file has no column ${listed(missing)}: expected `
    + `${listed(names)}, in any order; it has ${listed(header)}${hint}`);
}

/**
 * Where each of the model's features stands in a header, by name; in order for a model without
 * names whose number of features is that of the columns.
 */
export function placesOf(header, model) {
  const names = featureNames(model);
  if (model.feature_names === null && names.some(name => !header.includes(name))) {
    if (header.length === names.length) return names.map((_, index) => index);
    throw new FileProblem(`the file has ${header.length} columns, and the model takes `
      + `${names.length}, in its order: its features have no names`);
  }
  if (names.some(name => !header.includes(name))) throw missingOf(names, header);
  const twice = names.find(name => header.indexOf(name) !== header.lastIndexOf(name));
  if (twice !== undefined) throw new FileProblem(`two columns are called ${twice}: rename one`);
  return names.map(name => header.indexOf(name));
}

// What is told of columns that are none of the model's.
export function othersOf(header, places) {
  const taken = new Set(places);
  return header.map((name, index) => ({ name, index })).filter(({ index }) => !taken.has(index));
}
