-- One step of a group: the same transition as src/transition, on Redis, one file for each of its modules. That one is the specification; tests/equality holds the
-- two together. src/backend/redis/script.rs joins the files, behind the constants that both share.
--
-- KEYS    the group's, in one Cluster slot: meta, sorted sets, then hashes
-- ARGV    1 the message (MessagePack)  2 a random u32  3 the channel prefix for wakes, '' for none  4 the group's name, which wakes carry
--         5 the time in us  6 the replication id: given in tests only
-- Returns the reply (MessagePack) and the names of the instances to be woken, in order.
--
-- What is needed is read once and kept in tables, changed there, and written once at the end: the number of commands depends neither on how many tickets
-- wait nor on how many come. A heartbeat takes 12, a join that waits 16, one that is granted at once 19, 32 such joins in one message 25. With aging
-- or fair shares each ticket that comes or goes takes one to a few of its own, however many wait. INFO is the dearest: 6 us where TIME takes 0.5.
--
-- Numbers are doubles: integers are exact below 2^53, and lose digits through `..`. So they are written by cmsgpack, which keeps integers, or by format.
-- Strings compare by the server's locale: names are compared by byte instead, and only digits by `<`.
-- A script's functions are made anew in each call, and that costs more than what most of them do. So a part is made when it is first used; and as its functions
-- are made inside of a function, they get what they share from there, not by the search through all open variables that Lua 5.1 would do here.


local call, pack, unpacked, format, max, min, floor = redis.call, cmsgpack.pack, cmsgpack.unpack, string.format, math.max, math.min, math.floor

-- Makes a part when it is first used.
local function part(define)
  return setmetatable({}, {
    __index = function(self, name)
      setmetatable(self, nil)
      define(self)
      return self[name]
    end,
  })
end

local store, group, configurations, queue, fair, windows, pace, calls, session, opening, ending, recovery, op, grant

-- The message; what this step gathers; the group's scalars (stored in meta); its rules, and their deployments by id.
local message = unpacked(ARGV[1])
message.seen, message.highest_finish = seen(message.seen), number(message.highest_finish)
local step = {
  grants = {}, refusals = {}, wakes = {}, id = '', base = 0, passed = 0, dropped = 0, settled = 0, more = false, recovered = false,
  random = tonumber(ARGV[2]) % (MODULUS - 1) + 1,
}
local state, rules, by_id
