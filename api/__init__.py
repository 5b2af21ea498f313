"""HTTP and the people who use it: parse, call one service method, render."""
