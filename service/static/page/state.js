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

// Let a field show the value of its own name (its `name`), and write what is entered.
export function bind(field) {
  const isBox = field.type === "checkbox";
  const initial = isBox ? field.defaultChecked : field.value;
  const given = read(field.name);
  if (given !== null) {
    if (isBox) field.checked = given === "true";
    else field.value = given;
    if (!field.checkValidity()) { // a link of somebody's own making
      field.value = initial;
      write({ [field.name]: null });
    }
  }
  const keep = () => {
    if (!field.checkValidity()) return;
    const value = isBox ? field.checked : field.value;
    write({ [field.name]: value === initial ? null : String(value) });
  };
  field.addEventListener("input", keep);
  field.addEventListener("change", keep);
}
