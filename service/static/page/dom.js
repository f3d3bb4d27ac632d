// Elements of the page: finding, making, and messages beside fields.

export const byId = id => document.getElementById(id);

// An element with properties (and attributes: aria, data, role) and children.
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in made && !key.startsWith("aria")) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

// The message that stands beside a field, made when it is first needed.
function messageOf(field) {
  const id = `${field.id}-message`;
  const found = byId(id);
  if (found) return found;
  const made = element("span", { id, className: "error", role: "alert" });
  (field.closest("label") ?? field).after(made);
  return made;
}

// Say beside a field what is wrong with it.
export function complain(field, text) {
  messageOf(field).textContent = text;
  field.setAttribute("aria-invalid", "true");
  field.setAttribute("aria-describedby", `${field.id}-message`);
}

// Whether a field holds what it takes; what is wrong is said beside it.
export function check(field) {
  const isGood = field.checkValidity();
  if (!isGood) complain(field, field.validationMessage);
  return isGood;
}

// Take back what was said beside the fields in an element.
export function clearComplaints(root) {
  for (const field of root.querySelectorAll("[aria-invalid]")) {
    field.removeAttribute("aria-invalid");
    field.removeAttribute("aria-describedby");
    messageOf(field).textContent = "";
  }
}
