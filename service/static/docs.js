// Swagger UI over this server's own description. Nothing is asked of any other host.

const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

let ui;

// The key as it was entered under Authorize, as a header.
function keyHeader() {
  const given = ui.authSelectors.authorized().toJS();
  if (given.bearer) return { Authorization: `Bearer ${given.bearer.value}` };
  if (given.key) return { "X-API-Key": given.key.value };
  return {};
}

// With a key the description has examples of the models that are served: get it once more.
const describeAgain = original => payload => {
  original(payload);
  ui.specActions.download();
};
const reload = () => ({
  statePlugins: {
    auth: {
      wrapActions: {
        authorize: describeAgain,
        logout: describeAgain,
      },
    },
  },
});

ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  persistAuthorization: false,
  validatorUrl: null,
  plugins: [reload],
  requestInterceptor: request => {
    if (request.loadSpec && ui) Object.assign(request.headers, keyHeader());
    return request;
  },
});
