"""How often gradient checkers accuse a right gradient or pass a wrong one."""
