"""The `modules` package of an AUTOMATIC1111-style host, as extensions import it.

Only `standalone.boot()` puts this package on `sys.path`. Module-level state (options, model, script
runners) is what extensions expect here, so it lives here; `App.close()` removes the whole package again.
"""
