// What kind of rows a model has.

export const isPicture = model => model.event_shape.length === 3
  && [1, 3].includes(model.event_shape[0]);
export const isPlane = model => model.features === 2;

// Why a model has no latents to be seen, or null where it has.
export const noLatents = ({ operations }) =>
  operations && !["encode", "decode"].every(name => operations.includes(name))
    ? "the model has no latents: it does not encode and decode" : null;

// Zeros in the shape of a row, nested as in JSON.
export const zeros = shape => shape.length ? Array(shape[0]).fill(zeros(shape.slice(1))) : 0;

// The array that rows of a model travel in.
export const arrayOf = model => model.dtype === "float64" ? Float64Array : Float32Array;

// The names of a row's numbers.
export const featureNames = model => model.feature_names
  ?? Array.from({ length: model.features }, (_, index) => `x${index + 1}`);
