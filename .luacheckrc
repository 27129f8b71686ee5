-- What Redis gives a script (Lua 5.1), and nothing else: a global that is written is an error there, too.
std = {
  read_globals = {
    "KEYS", "ARGV", "redis", "cmsgpack",
    "error", "getmetatable", "ipairs", "next", "pairs", "pcall", "select", "setmetatable", "tonumber", "tostring", "type", "unpack",
    "math", "string", "table",
  },
}
-- Parts of the step take the table that they fill as a parameter of the same name (431); long lines are the formatter's.
ignore = { "431" }
max_line_length = false
