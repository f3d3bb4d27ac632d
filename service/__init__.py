"""The service: HTTP over normalizing flows. `service.app.create_app` is its entrance."""
