"""The demo: a local page on which every pretrained model can be used, in English and Chinese.

`actions` and `sequences` compute the results, `texts` has all texts of the page, `page` builds it
from `controls` and `widgets`, and `server` serves it.
"""
