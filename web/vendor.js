// What explore.js takes from libraries; `npm run build` bundles it.
export { geoEqualEarthRaw } from "d3-geo";
export { select } from "d3-selection";
export { zoom, zoomIdentity } from "d3-zoom";
export { default as earcut, flatten } from "earcut";
export { default as uPlot } from "uplot";
