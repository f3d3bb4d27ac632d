// Rows that a user wrote as JSON.

// What a text holds; the example is of what is expected.
export function parseJson(text, example) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`expected a row as JSON, such as ${example}: ${error.message}`);
  }
}
