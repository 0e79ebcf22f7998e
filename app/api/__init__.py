"""The REST API: thin routers that translate between HTTP and the services."""
