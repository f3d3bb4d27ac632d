// NumPy's file format, version 1.0: arrays of numbers as bytes.
// Reference: NumPy Enhancement Proposal 1.

const TYPES = {
  "<f4": Float32Array,
  "<f8": Float64Array,
  "<i4": Int32Array,
  "|u1": Uint8Array,
  "|b1": Uint8Array,
};

// {data: a typed array, shape: its lengths} as the bytes of a .npy file.
export function writeNpy({ data, shape }) {
  const [descr] = Object.entries(TYPES).find(([, type]) => data instanceof type);
  const lengths = shape.join(", ") + (shape.length === 1 ? "," : "");
  const facts = `{'descr': '${descr}', 'fortran_order': False, 'shape': (${lengths}), }`;
  const size = Math.ceil((10 + facts.length + 1) / 64) * 64;
  const bytes = new Uint8Array(size + data.byteLength).fill(0x20);
  bytes.set([0x93, ...new TextEncoder().encode("NUMPY"), 1, 0]);
  new DataView(bytes.buffer).setUint16(8, size - 10, true);
  bytes.set(new TextEncoder().encode(facts), 10);
  bytes[size - 1] = 0x0a;
  bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), size);
  return bytes;
}

// The array in the bytes (an ArrayBuffer) of a .npy file.
export function readNpy(buffer) {
  const bytes = new Uint8Array(buffer);
  if (bytes[0] !== 0x93 || String.fromCharCode(...bytes.subarray(1, 6)) !== "NUMPY") {
    throw new Error("expected a .npy file, whose first bytes are \\x93NUMPY");
  }
  const view = new DataView(buffer);
  const [start, length] = bytes[6] === 1 ? [10, view.getUint16(8, true)]
    : [12, view.getUint32(8, true)];
  const facts = new TextDecoder().decode(bytes.subarray(start, start + length));
  const descr = /'descr': '([^']*)'/.exec(facts)?.[1];
  const type = TYPES[descr];
  if (!type || facts.includes("'fortran_order': True")) {
    throw new Error(`expected an array of ${Object.keys(TYPES).join(", ")} in C order, `
      + `got ${descr ?? facts}`);
  }
  const shape = /'shape': \(([^)]*)\)/.exec(facts)[1].split(",").filter(part => part.trim())
    .map(Number);
  return { data: new type(buffer.slice(start + length)), shape };
}
