// What is looked at, in the part of the address behind #: a link leads to the same view.

const values = () => new URLSearchParams(location.hash.slice(1));

export const read = (name, otherwise = null) => values().get(name) ?? otherwise;

// Write values, by name; null takes one out.
export function write(changes) {
  const next = values();
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === "") next.delete(name);
    else next.set(name, value);
  }
  history.replaceState(null, "", `#${next}`);
}

// Keep these names and forget all others: they belong to another model.
export const keepOnly = (...names) => write(Object.fromEntries(
  [...values().keys()].filter(name => !names.includes(name)).map(name => [name, null])));

// Let a select show a value; where it has no such option, another one.
export function readOption(select, name, otherwise) {
  const given = read(name);
  const isKnown = [...select.options].some(({ value }) => value === given);
  select.value = isKnown ? given : otherwise;
}

const readers = new WeakMap(); // by field: shows what the address has

// Let a field show the value of its own name (its `name`), and write what is entered.
export function bind(field) {
  const isBox = field.type === "checkbox";
  const initial = isBox ? field.defaultChecked : field.value;
  const show = () => {
    const given = read(field.name);
    if (isBox) field.checked = given === null ? initial : given === "true";
    else if (field.options) readOption(field, field.name, initial);
    else field.value = given ?? initial;
    if (given === null || field.checkValidity()) return;
    field.value = initial; // a link of somebody's own making
    write({ [field.name]: null });
  };
  show();
  readers.set(field, show);
  const keep = () => {
    if (!field.checkValidity()) return;
    const value = isBox ? field.checked : field.value;
    write({ [field.name]: value === initial ? null : String(value) });
  };
  field.addEventListener("input", keep);
  field.addEventListener("change", keep);
}

// Show again what the address has, in all fields of an element that are bound to it.
export function readAgain(root) {
  for (const field of root.querySelectorAll("[name]")) readers.get(field)?.();
}
