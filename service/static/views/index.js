// The views, in the order of their tabs.
//
// A view is {id, title, unfit, mount}. unfit(model) is null, or why the model has no such view.
// mount(root, app) fills its panel, once, when it is first shown, and gives {show, hide}: show() is
// called when the view comes up and when the model, its class or its context is another; hide(),
// where there is one, when another view comes up. app is described in page.js.

import { density } from "./density.js";
import { interpolate } from "./interpolate.js";
import { live } from "./live.js";
import { samples } from "./samples.js";
import { score } from "./score.js";
import { trust } from "./trust.js";

export const VIEWS = [density, samples, interpolate, score, trust, live];
