// The elements of the view.

export const HTML = `
  <h2>Density</h2>
  <p class="quiet" id="density-caption"></p>
  <div id="density-pair">
    <label>across <select id="density-first"></select></label>
    <label>up <select id="density-second"></select></label>
  </div>
  <div class="checks">
    <label><input type="checkbox" id="density-samples"> samples</label>
    <label><input type="checkbox" id="density-lines"> lines of equal density</label>
    <label id="density-warp-field"><input type="checkbox" id="density-warp"> grid of z</label>
    <label>colours span <select id="density-nats">
      <option value="5">5 nats</option>
      <option value="10">10 nats</option>
      <option value="20">20 nats</option>
      <option value="50">50 nats</option>
      <option value="1000">1,000 nats</option>
    </select></label>
  </div>
  <div class="side-by-side">
    <section aria-labelledby="density-x-title">
      <h3 id="density-x-title">x, the data</h3>
      <div class="plane" id="density-x" role="application" tabindex="0" aria-label="Map of the density">
        <canvas class="map" width="1" height="1" aria-hidden="true"></canvas>
        <canvas class="ink" aria-hidden="true"></canvas>
      </div>
      <p class="legend">
        <span>log p, nats</span> <span id="density-low"></span>
        <canvas id="density-scale" width="160" height="12" aria-hidden="true"></canvas>
        <span id="density-high"></span>
        <span id="density-outside" hidden><canvas width="16" height="16" aria-hidden="true"></canvas>
          outside of the support: no density</span>
        <span id="density-unsolved" hidden><canvas width="16" height="16" aria-hidden="true"></canvas>
          not computed</span>
      </p>
      <p id="density-hover" class="quiet">&nbsp;</p>
      <div role="group" aria-label="What the map shows" class="buttons">
        <button type="button" id="density-in" aria-label="zoom in">+</button>
        <button type="button" id="density-out" aria-label="zoom out">−</button>
        <button type="button" id="density-left" aria-label="pan left">←</button>
        <button type="button" id="density-right" aria-label="pan right">→</button>
        <button type="button" id="density-up" aria-label="pan up">↑</button>
        <button type="button" id="density-down" aria-label="pan down">↓</button>
        <button type="button" id="density-fit" title="to where the density is">fit</button>
        <button type="button" id="density-whole" title="all that it was trained on">all</button>
        <button type="button" id="density-refine" hidden>refine</button>
        <span id="density-progress" class="quiet"></span>
      </div>
    </section>
    <div>
    <section id="density-z-side" aria-labelledby="density-z-title">
      <h3 id="density-z-title">z, the latents</h3>
      <div class="plane" id="density-z" role="application" tabindex="0" aria-label="The base density">
        <canvas class="map" width="1" height="1" aria-hidden="true"></canvas>
        <canvas class="ink" aria-hidden="true"></canvas>
      </div>
      <p id="density-z-text"></p>
    </section>
    <section id="density-bars-side" aria-labelledby="density-bars-title">
      <h3 id="density-bars-title">z, the latents of the row</h3>
      <ul id="density-bars"></ul>
      <p class="quiet" id="density-bars-note"></p>
      <p class="quiet">σ is the unit of z: of
        rows like the data two thirds lie within 1 σ of 0. The latents follow the point; they are moved
        in models of two features alone.</p>
    </section>
    <section aria-label="What log p is made of">
      <p id="density-status" role="status"></p>
      <table id="density-sum">
        <tr><td></td><th scope="row">log-density of z under the standard normal,
        <span id="density-formula"></span></th><td id="density-base"></td><td>nats</td></tr>
        <tr><td>+</td><th scope="row">log-det: how much the flow stretches space at x</th>
          <td id="density-log-det"></td><td>nats</td></tr>
        <tr><td>=</td><th scope="row">log p of x</th><td id="density-log-p"></td><td>nats</td></tr>
      </table>
      <p id="density-off" class="error" role="status"></p>
    </section>
    </div>
  </div>
  <p class="quiet">Drag the point with pointer or finger, or choose a plane and press the arrow keys
    (Shift: ten times as far). In a plane that is chosen + and − or the wheel zoom, W A S D pan.</p>
  <label class="wide">the row, as JSON <textarea id="density-row" spellcheck="false"></textarea></label>
  <label>or the sample of seed <input type="number" id="density-seed" min="0" step="1"></label>
  <button type="button" id="density-another">Next sample</button>`;
