"""The examples that compute rows in other engines give what the commands over files give."""
