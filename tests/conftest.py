"""What all tests have: pytester, for the plugin's."""

pytest_plugins = ["pytester"]
