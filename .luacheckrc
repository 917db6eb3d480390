-- The Lua that Redis and Valkey run: 5.1 with a few globals of theirs.
std = {
  read_globals = {
    'KEYS', 'ARGV',
    redis = { fields = { 'call', 'pcall' } },
    math = { fields = { 'abs', 'min' } },
    'ipairs', 'pcall', 'error', 'tostring', 'type', 'unpack',
  },
}
max_line_length = 120
