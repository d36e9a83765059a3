-- What a batch came to and what a person decided is added to and never changed by the application.
REVOKE UPDATE, DELETE ON batch_closings, resolutions FROM orders_app;
