-- One step of a group on Redis: the transition of src/transition, which is the specification; tests/equality compares the two. There is one file for each module, with
-- the same functions in the same order. A method of the state has the module's name before the dot here: `begin_recovery` is `recovery.begin`. The head of each file says
-- which functions exist on one side only, and why. src/backend/redis/script.rs joins the files, behind the constants that both share.
--
-- KEYS    those of the group, in one Cluster slot: meta, sorted sets, then hashes
-- ARGV    1 the message (MessagePack)  2 a random u32  3 the channel prefix for wakes, '' for none  4 the group's name, which wakes carry
--         5 the time in us, in tests only  6 the replication id, in tests only
-- Returns the reply (MessagePack) and the names of the instances to be woken, in order.
--
-- What a step needs is read once into tables, changed there, and written once at the end. So the number of commands depends neither on the depth of the queue nor on the
-- number of ops. In a library, where most of it is kept from the last call, a heartbeat takes 4 commands, 6 while tickets wait; a join that waits 8; a join that is granted
-- at once 7, and as many if the end of another call comes with it or if there are 32 of each, but for one more where calls end. With aging or fair shares each ticket that
-- joins or leaves takes one to a few more. INFO is the most expensive command: 6 us, where TIME takes 0.5.
--
-- Numbers are doubles: integers are exact below 2^53, and lose digits through `..`. So they are written by cmsgpack, which keeps integers, or by format.
-- Strings compare by the server's locale, so names are compared by byte, and only digits by `<`.
-- The functions of a library are created once, those of a script again in each call, which costs more than most of them take to run. So a part is created when it is first
-- used. Its functions are created inside a function, so that they find what they share there: Lua 5.1 would search all open variables here.

local call, pack, unpacked, format, max, min, floor = redis.call, cmsgpack.pack, cmsgpack.unpack, string.format, math.max, math.min, math.floor
-- What parts do at the beginning of each call.
local resets = {}

-- Creates a part when it is first used. `define` returns what the part does at the beginning of each call, if it keeps anything of its own.
local function part(define)
  return setmetatable({}, {
    __index = function(self, name)
      setmetatable(self, nil)
      local reset = define(self)
      if reset then
        resets[#resets + 1] = reset
        reset()
      end
      return self[name]
    end,
  })
end

local store, group, configurations, queue, fair, windows, pace, calls, session, opening, ending, recovery, operators, op, grant

-- The arguments; the message; what this step gathers; the group's scalars; the rules in force, and their deployments by id.
local keys, arguments, message, step, context = nil, nil, {}, nil, nil
local state, rules, by_id

-- Records of the group. By session: its record; its last answer, packed; the deployments that its rules name. By instance: its last opening and session, and when it
-- departed. By session: its undelivered grants and refusals. By deployment: its failures and its cooldown; its totals; its times of pacing.
local sessions, answers, deployments, instances, inbox, health, totals, due
