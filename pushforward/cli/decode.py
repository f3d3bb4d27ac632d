"""`pushforward decode`: the operation over files, in this process."""

from pushforward.cli.file_jobs import row_command

decode = row_command("decode", "Map files of latents to data, without a server.")
