// What the tests ask OpenLayers and zarrita about a store. In: an address and what to look at. Out: plain values. Nothing of ours decodes.

import Map from 'ol/Map.js';
import View from 'ol/View.js';
import TileLayer from 'ol/layer/WebGLTile.js';
import GeoZarr from 'ol/source/GeoZarr.js';
import * as zarr from 'zarrita';

function ready(source) {
  return new Promise((resolve, reject) => {
    const look = () => {
      if (source.getState() === 'ready') resolve();
      if (source.getState() === 'error') reject(source.error_ || new Error('the source cannot be read'));
    };
    source.on('change', look);
    look();
  });
}

// Draws bands at one resolution and returns what is seen at places: numbers as the layer has them, alpha last, and the screen's colour.
window.draw = async ({url, bands, resolution, places, least, most}) => {
  document.getElementById('map').replaceChildren();
  const source = new GeoZarr({url, bands, transition: 0, resample: 'nearest'});
  await ready(source);
  const grid = source.getTileGrid();
  const projection = source.getProjection();
  const stretch = (band) => ['interpolate', ['linear'], ['band', band], least, 0, most, 255];
  const layer = new TileLayer({
    source,
    style: {color: ['color', stretch(1), stretch(2), stretch(3), ['band', bands.length + 1]]},
  });
  const map = new Map({
    target: 'map',
    controls: [],
    layers: [layer],
    pixelRatio: 1,
    view: new View({projection, center: places[0], resolution, constrainRotation: 1, minResolution: 1, maxResolution: 2000}),
  });
  const seen = [];
  for (const place of places) {
    map.getView().setCenter(place);
    await new Promise((resolve) => {
      map.once('rendercomplete', resolve);
      map.render();
    });
    const data = layer.getData(map.getPixelFromCoordinate(place));
    seen.push(data === null ? null : Array.from(data, (value) => (Number.isNaN(value) ? null : value)));
  }
  const canvas = document.querySelector('#map canvas');
  const shown = {
    projection: projection.getCode(),
    extent: grid.getExtent(),
    resolutions: grid.getResolutions(),
    seen,
    canvas: canvas !== null,
  };
  return shown;
};

// Reads an array by zarrita: its shape, and of some elements the values.
window.read = async ({url, path, places}) => {
  const root = zarr.root(new zarr.FetchStore(url));
  const array = await zarr.open.v3(root.resolve(path), {kind: 'array'});
  const values = [];
  for (const place of places) {
    const value = await zarr.get(array, place);
    values.push(Number.isNaN(value) ? null : Number(value));
  }
  return {shape: array.shape, attributes: array.attrs, values};
};

window.loaded = true;
