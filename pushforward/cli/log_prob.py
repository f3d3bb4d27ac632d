"""`pushforward log-prob`: the operation over files, in this process."""

from pushforward.cli.file_jobs import row_command

log_prob = row_command(
    "log_prob", "Compute the log-density of files of rows, in nats, without a server."
)
