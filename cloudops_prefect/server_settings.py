"""How the Prefect servers of this package are set up."""

# With Prefect's own batches the recorder is 12 s behind after a plan of 400 commands, with these
# 0.5 s (measured with 3.9.1). It cuts its flush interval down to whole seconds, so that one below 1
# is 0 and keeps a core busy for as long as the server lives. Nobody has agreed to send statistics
# from a server that starts by itself.
DEFAULT_SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
}
