"""`pushforward encode`: the operation over files, in this process."""

from pushforward.cli.file_jobs import row_command

encode = row_command("encode", "Map files of rows to latents, without a server.")
