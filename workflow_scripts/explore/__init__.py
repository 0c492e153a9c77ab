"""Parts of the explore page: its columns, its outlines of land, and in `static/` the page itself.

`static/vendor.js` is a bundle of libraries from npm, pinned in `web/package-lock.json` and built by
`make web`; `static/vendor.LICENSES.txt` holds their licenses. Everything else in it is ours.
"""
