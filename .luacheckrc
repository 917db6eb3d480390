-- The Lua that Redis and Valkey run: 5.1 with a few globals of theirs.
std = {
  read_globals = {
    'KEYS', 'ARGV',
    redis = { fields = { 'call', 'pcall', 'sha1hex' } },
    math = { fields = { 'abs', 'floor', 'max', 'min' } },
    table = { fields = { 'concat', 'sort' } },
    os = { fields = { 'clock' } },
    '_G', 'ipairs', 'pairs', 'pcall', 'error', 'rawget', 'select', 'setmetatable', 'tonumber', 'tostring', 'type', 'unpack',
  },
}
max_line_length = 120
