-- One step of a group: the same transition as src/transition, on Redis. That one is the specification; tests/equality holds the two together.
--
-- KEYS    the group's, in one Cluster slot: meta, queue, windows, idle, lines, lengths, calls (sorted sets), then hashes in the order in which they are named below
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

local META, QUEUE, WINDOWS, IDLE, LINES, LENGTHS, CALLS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
-- No limit; a time that never comes.
local NONE, NEVER = -1, 2 ^ 53
local DONE, RESYNC, STALE = 0, 1, 2
local NEVER_FITS, QUEUE_FULL = 1, 2
-- All millionths.
local WHOLE = 1000000
-- What comes from outside is cut to what stays exact (src/bounds.rs): one charge, all charges of a deployment, both of each kind, and durations.
local AMOUNT, TOTAL, DURATION = 9000000001, 2 ^ 52 - 1, 2 ^ 50

-- Unsigned integers of 2^63 and more are read as negative ones.
local function bounded(value, most) return (value < 0 or value > most) and most or value end

-- A sequence number; 0 where it can be none.
local function number(value) return value >= 0 and value < NEVER and value or 0 end

-- A sequence number that others go on from; 0 where it is so high that it says nothing, and would leave no room above it.
local function seen(value) return value >= 0 and value < 2 ^ 52 and value or 0 end

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
message.seen, message.horizon = seen(message.seen), number(message.horizon)
local step = { grants = {}, refusals = {}, wakes = {}, id = '', base = 0, passed = 0, dropped = 0, settled = 0, more = false, recovered = false, random = tonumber(ARGV[2]) % 2147483646 + 1 }
local state, rules, by_id

-- Storage ------------------------------------------------------------------------------------------------------------

store = part(function(store)
  local Hash = {}
  Hash.__index = Hash

  -- P17: `dirty` is set before the first change and cleared with the last.
  local dirty = false

  function store.write(...)
    if not dirty then
      dirty = true
      call('HSET', META, 'dirty', 1)
    end
    return call(...)
  end

  -- Writes any number of arguments; `unpack` fails near 8,000.
  function store.write_all(command, key, arguments)
    local written = 0
    for from = 1, #arguments, 4000 do
      written = written + store.write(command, key, unpack(arguments, from, min(from + 3999, #arguments)))
    end
    return written
  end

  -- Members of a sorted set come to a score, or leave it (false).
  function store.move_all(key, moves)
    local added, removed = {}, {}
    for member, at in pairs(moves) do
      if at then
        added[#added + 1] = at
        added[#added + 1] = member
      else
        removed[#removed + 1] = member
      end
    end
    store.write_all('ZADD', key, added)
    store.write_all('ZREM', key, removed)
  end

  -- A number as a field or member: digits of one length sort like numbers.
  function store.id(number) return format('%016d', number) end

  -- By byte, whatever the server's locale.
  function store.before(a, b)
    for i = 1, min(#a, #b) do
      local x, y = a:byte(i), b:byte(i)
      if x ~= y then return x < y end
    end
    return #a < #b
  end

  function store.sorted(set)
    local names = {}
    for name in pairs(set) do names[#names + 1] = name end
    if #names > 1 then table.sort(names, store.before) end
    return names
  end

  -- A hash of records: each is read at most once (false: there is none), and written once, if it was changed.
  function store.hash(key, plain) return setmetatable({ key = key, plain = plain, known = {}, changed = {}, whole = false }, Hash) end

  -- An empty value is no record: it keeps the key alive.
  function Hash:learn(field, value)
    local record = value and value ~= '' and (self.plain and value or unpacked(value)) or false
    self.known[field] = record
    return record
  end

  function Hash:get(field)
    local record = self.known[field]
    if record ~= nil then return record end
    return not self.whole and self:learn(field, call('HGET', self.key, field))
  end

  -- Reads many at once, so that `get` finds them.
  function Hash:fetch(fields)
    if self.whole then return end
    local missing = {}
    for _, field in ipairs(fields) do
      if self.known[field] == nil then
        self.known[field] = false
        missing[#missing + 1] = field
      end
    end
    for from = 1, #missing, 4000 do
      local values = call('HMGET', self.key, unpack(missing, from, min(from + 3999, #missing)))
      for i, value in ipairs(values) do self:learn(missing[from + i - 1], value) end
    end
  end

  -- All of them, the removed ones as false.
  function Hash:all()
    if not self.whole then
      self.whole = true
      local values = call('HGETALL', self.key)
      for i = 1, #values, 2 do
        if self.known[values[i]] == nil then self:learn(values[i], values[i + 1]) end
      end
    end
    return self.known
  end

  function Hash:put(field, record)
    self.known[field], self.changed[field] = record, true
  end

  function Hash:clear()
    store.write('UNLINK', self.key)
    self.known, self.changed, self.whole = {}, {}, true
  end

  function Hash:save()
    if not next(self.changed) then return end
    local set, removed = {}, {}
    for field in pairs(self.changed) do
      local record = self.known[field]
      if record then
        set[#set + 1] = field
        set[#set + 1] = self.plain and record or pack(record)
      else
        removed[#removed + 1] = field
      end
    end
    store.write_all('HSET', self.key, set)
    store.write_all('HDEL', self.key, removed)
  end
end)

-- By session: what it is; its last answer, as it was packed; what deployments its rules name. By instance: its last hello and session, and when it was gone.
local sessions, answers, deployments, instances = store.hash(KEYS[8]), store.hash(KEYS[9], true), store.hash(KEYS[10]), store.hash(KEYS[11])
-- By session: what waits for its owner to come. By deployment.
local inbox, health = store.hash(KEYS[12]), store.hash(KEYS[13])

-- The group -----------------------------------------------------------------------------------------------------------

group = part(function(group)
  -- Keys live this long after the last refresh, which comes once a day (s, us).
  local LIFE, REFRESH = 604800, 86400000000
  local rules_changed = false

  function group.use_rules(new)
    rules, by_id = new, {}
    for _, deployment in ipairs(rules.deployments) do by_id[deployment.id] = by_id[deployment.id] or deployment end
  end

  function group.install_rules(new)
    rules_changed = true
    group.use_rules(new)
  end

  -- P5: from one counter, never below the group clock.
  function group.draw()
    state.last = max(state.last + 1, state.clock)
    return state.last
  end

  function group.reap_after(lease) return lease - 2 * floor(lease / 6) end

  -- What is kept of an instance beyond its session: its last hello (-1: none) and session, and when it was gone (-1: it is not).
  function group.instance(name) return instances:get(name) or { hello = -1, session = '', gone = -1 } end

  function group.set_gone(name, at)
    local known = group.instance(name)
    known.gone = at
    instances:put(name, known)
  end

  function group.heartbeat() return floor(rules.lease / 6) end

  -- P9: how long after the first sending of its last answered message an instance may dispatch what the session granted it.
  function group.dispatch_within() return group.reap_after(rules.lease) - group.heartbeat() end

  -- P8: an open charge that would have left its window if it had been dispatched at its grant is looked at again after this long.
  function group.look_again() return floor(group.heartbeat() / 16) end

  -- Their ids.
  function group.deployments()
    local ids = {}
    for i, deployment in ipairs(rules.deployments) do ids[i] = deployment.id end
    return ids
  end

  -- Whether any ticket can be paced.
  function group.paces() return rules and rules.pace_worse_than < 2147483647 end

  function group.depth() return state.size + state.behind - state.ghosts end

  function group.wake(owner) step.wakes[owner.instance] = true end

  -- P6, P7: both clocks follow the highest server time, so jitter does not add up; the lease clock counts at most a heartbeat per step.
  -- A server clock that is more than a second behind was set back: its time is the new base.
  local function advance(raw)
    local CLOCK_SET_BACK = 1000000
    local passed = max(raw - state.raw, 0)
    step.passed = passed
    if passed > 0 or raw + CLOCK_SET_BACK < state.raw then state.raw = raw end
    state.clock = state.clock + passed
    state.lease = state.lease + min(passed, rules and group.heartbeat() or 0)
  end

  -- Where the numbers of a new state begin: above the clock, and above what its first sender knows. A clock behind that has gone back, and says nothing (P5).
  local function first_number(raw)
    local LEAP = 10000000
    return raw + LEAP >= message.seen and raw + LEAP or message.seen + LEAP
  end

  function group.load(raw, replication)
    local stored = call('HMGET', META, 'state', 'rules', 'dirty')
    if not stored[1] then
      -- Rules that may be left are void.
      rules_changed, by_id = true, {}
      state = {
        better = { 0, 0 }, epoch = '', replication = '', raw = raw, clock = raw, lease = raw, last = first_number(raw), peers_version = 0,
        horizon = 0, floor = 0, era = 0, epochs = {}, generation = 0, former = {},
      }
      -- The state that the sender knows is lost: that is why there is none.
      recovery.note_epoch(message.epoch)
      recovery.begin(replication)
      return
    end
    state, by_id = unpacked(stored[1]), {}
    if stored[2] ~= '' then group.use_rules(unpacked(stored[2])) end
    advance(raw)
    if stored[3] ~= '' or (replication ~= '' and state.replication ~= replication) then recovery.begin(replication) end
  end

  -- All keys get their life extended together. A key that is emptied would come again without: so each keeps a member that means nothing.
  local function refresh()
    for i, key in ipairs(KEYS) do
      if key == LINES or key == CALLS then
        -- Ranges by name need all to have one score.
        store.write('ZADD', key, 0, ':')
      elseif i > 1 and i < 8 then
        store.write('ZADD', key, '+inf', '')
      elseif i > 1 then
        store.write('HSET', key, '', '')
      end
    end
    for _, key in ipairs(KEYS) do store.write('EXPIRE', key, LIFE) end
    state.refresh_at = state.clock + REFRESH
  end

  function group.save()
    queue.save()
    windows.save()
    if not getmetatable(calls) then calls.save() end
    if group.paces() then pace.save() end
    -- If it was used.
    if not getmetatable(fair) then fair.save() end
    for _, hash in ipairs({ sessions, answers, deployments, instances, inbox, health }) do hash:save() end
    if state.clock >= state.refresh_at then refresh() end
    if rules_changed then store.write('HSET', META, 'rules', configurations.packed()) end
    call('HSET', META, 'state', pack(state), 'dirty', '')
  end
end)

-- Configurations: they differ during every roll-out (src/transition/configurations.rs) ----------------------------------
-- The rules in force are the union of what the live sessions brought, with the stricter limits. Beside them `rules` has `configurations`, the newest first, each
-- with its id, version, and rules of its own (nil where there is only one: they are those in force); and where there are several `newest`: the same
-- deployments and windows with the limits of the newest configuration that knows them.

configurations = part(function(configurations)
  -- The same for equal rules: a table's own order is not.
  local function fingerprint(of)
    local parts = {
      of.strategy, of.max_queue_depth, of.allowed_fails, of.cooldown, of.lease, of.memory, of.pace_worse_than, of.reserve_priority, of.left, of.aging,
      of.fair,
    }
    for _, deployment in ipairs(of.deployments) do
      local part = { deployment.id, deployment.weight, deployment.concurrency, deployment.cooldown }
      for _, window in ipairs(deployment.windows) do part[#part + 1] = { window.span, window.limits } end
      parts[#parts + 1] = part
    end
    return pack(parts)
  end

  -- What is counted: another list of windows needs a recount.
  local function counted(of)
    local all = {}
    for _, deployment in ipairs(of.deployments) do
      local spans = {}
      for i, window in ipairs(deployment.windows) do spans[i] = window.span end
      all[deployment.id] = pack(spans)
    end
    return all
  end

  -- The deployments that are counted alike; whether all are.
  local function counted_alike(one, other)
    local before, after, alike, all = counted(one), counted(other), {}, true
    for id, spans in pairs(before) do
      alike[id] = after[id] == spans
      all = all and alike[id]
    end
    for id in pairs(after) do all = all and before[id] ~= nil end
    return alike, all
  end

  local function copy(of)
    local new = {}
    for key, value in pairs(of) do new[key] = value end
    return new
  end

  -- All of them, each with its rules.
  local all
  local function list()
    if all then return all end
    all = rules and rules.configurations or {}
    if #all == 1 and not all[1].rules then
      local own = copy(rules)
      own.configurations, own.newest = nil, nil
      all[1].rules = own
    end
    return all
  end

  -- Takes a session's configuration: one that is known, or a new one. One without a version was never in force, so it is the newest. A restarted instance has none, but its
  -- configuration is known as long as others have it: so it is not taken for a newer one. Returns its id.
  function configurations.learn(offered, version)
    local id
    local wanted = fingerprint(offered)
    for _, known in ipairs(list()) do
      if not id and fingerprint(known.rules) == wanted then
        known.version, id = max(known.version, version), known.id
      end
    end
    if not id then
      id = group.draw()
      all[#all + 1] = { id = id, version = version == 0 and id or version, rules = offered }
    end
    table.sort(all, function(a, b) return a.version > b.version or (a.version == b.version and a.id > b.id) end)
    return id
  end

  local function stricter(newer, older, strict)
    if not strict or older == NONE then return newer end
    return newer == NONE and older or min(newer, older)
  end

  local function copy_windows(of)
    local windows = {}
    for i, window in ipairs(of) do windows[i] = copy(window) end
    return windows
  end

  -- Adds an older configuration's limits of a deployment.
  local function add_limits(known, older, strict)
    known.concurrency = stricter(known.concurrency, older.concurrency, strict)
    for _, window in ipairs(older.windows) do
      local same
      for _, of in ipairs(known.windows) do
        if of.span == window.span then same = of end
      end
      if not same then
        same = { span = window.span, limits = { NONE, NONE, NONE, NONE } }
        table.insert(known.windows, same)
      end
      local limits = {}
      for kind, limit in ipairs(window.limits) do limits[kind] = stricter(same.limits[kind], limit, strict) end
      same.limits = limits
    end
    table.sort(known.windows, function(a, b) return a.span < b.span end)
  end

  local function merged(strict)
    local of, known = copy(all[1].rules), {}
    of.deployments = {}
    for i, configuration in ipairs(all) do
      local other = configuration.rules
      if i > 1 then
        of.lease, of.memory = max(of.lease, other.lease), max(of.memory, other.memory)
        -- Not a provider's limit: the looser one refuses no ticket that either lets wait.
        local capped = of.max_queue_depth > 0 and other.max_queue_depth > 0
        of.max_queue_depth = capped and max(of.max_queue_depth, other.max_queue_depth) or 0
        if not strict then of.left, of.reserve_priority = max(of.left, other.left), max(of.reserve_priority, other.reserve_priority) end
      end
      for _, deployment in ipairs(other.deployments) do
        if known[deployment.id] then
          add_limits(known[deployment.id], deployment, strict)
        else
          local own = copy(deployment)
          own.windows = copy_windows(deployment.windows)
          known[deployment.id] = own
          table.insert(of.deployments, own)
        end
      end
    end
    return of
  end

  -- What the order of the queue, and what is counted in it, depends on.
  local function ordering(of)
    if not of then return '' end
    local shares = tostring(of.fair)
    return of.aging > 0 and format('%s %.0f %d %d', shares, of.aging, of.pace_worse_than, of.reserve_priority) or shares
  end

  -- Works out the rules in force after sessions have begun or ended. While the group recovers all configurations are kept: their sessions are on their way.
  -- Returns whether the order of tickets that wait has become another one.
  function configurations.settle()
    state.unsettled = false
    if #list() == 0 then return false end
    local live, former = {}, rules
    for _, owner in pairs(sessions:all()) do
      if owner then live[owner.configuration] = true end
    end
    if not state.recovery and next(live) then
      local kept = {}
      for _, configuration in ipairs(all) do
        if live[configuration.id] then kept[#kept + 1] = configuration end
      end
      all = kept
    end
    local strict = merged(true)
    if #all > 1 then strict.newest = merged(false) end
    local before = former and fingerprint(former)
    group.install_rules(strict)
    if before ~= fingerprint(strict) then
      if former then
        local alike, all_alike = counted_alike(former, strict)
        if not all_alike then windows.relist(former, alike) end
      end
      -- So that all learn at once for how long to remember, and how often to step. Not instances that sleep without a session: one would bring its
      -- configuration, go to sleep, and take it along again.
      for _, owner in pairs(former and sessions:all() or {}) do
        if owner then group.wake(owner) end
      end
    end
    rules.configurations = all
    return state.size + state.behind > 0 and ordering(former) ~= ordering(strict)
  end

  -- As they are stored: what there is only one of is stored once.
  function configurations.packed()
    if not rules then return '' end
    if #rules.configurations == 1 then rules.configurations[1].rules = nil end
    return pack(rules)
  end

  function configurations.version(id)
    for _, known in ipairs(rules.configurations) do
      if known.id == id then return known.version end
    end
    return 0
  end

  -- The shortest heartbeat of all: how often each instance has to step.
  function configurations.heartbeat()
    local shortest = NEVER
    for _, known in ipairs(rules.configurations) do shortest = min(shortest, floor((known.rules or rules).lease / 6)) end
    return shortest
  end
end)

-- The queue: score; member (start), arrival, session, tokens in and out, (tenant, cost), tried, priority: equal scores sort by member

queue = part(function(queue)
  -- A ticket that comes into a full queue is the worst itself.
  queue.REFUSE = {}
  -- How many orphaned entries are dropped in one step, and how many places the sweep looks at (P16).
  local MAX_ORPHANS, MAX_SWEEP = 128, 64
  -- Joins and leaves of the sender, written together where they come in a row.
  local later, later_command = {}, nil
  -- The front is read in growing parts; what was taken from it is removed in one go.
  local front, at, taken, part = {}, 1, 0, 1

  -- The priority; or with aging the time at which the best priority would have had to come to stand there. Priorities worth more than 142 years are alike.
  -- `arrival`: with fair shares, the start.
  function queue.score(priority, arrival)
    if rules.aging == 0 then return priority end
    local MOST = 2 ^ 52
    return min(arrival + max(min(priority * rules.aging, MOST), -MOST), NEVER - 1)
  end

  -- A place has priority, arrival, session, input and output tokens, the deployments that its request has tried (as bits); with fair shares tenant and cost, and where its tenant's turn begins. Where it comes from the queue,
  -- score and member.
  local function member_of(place)
    if not rules.fair then
      return format('%016d%s%016d%016d%016d%d', place.arrival, place.session, place.input, place.output, place.tried, place.priority)
    end
    return format(
      '%016d%016d%s%016d%016d%016d%016d%016d%d', place.start, place.arrival, place.session, place.input, place.output, place.tenant, place.cost,
      place.tried, place.priority
    )
  end

  local function place_of(member, score)
    local function digits(from) return tonumber(member:sub(from, from + 15)) end
    if not rules.fair then
      return {
        score = tonumber(score), member = member, start = 0, arrival = digits(1), session = member:sub(17, 32), input = digits(33),
        output = digits(49), tried = digits(65), priority = tonumber(member:sub(81)),
      }
    end
    return {
      score = tonumber(score), member = member, start = digits(1), arrival = digits(17), session = member:sub(33, 48), input = digits(49),
      output = digits(65), tenant = digits(81), cost = digits(97), tried = digits(113), priority = tonumber(member:sub(129)),
    }
  end

  -- With aging better tickets can wait behind the head. How many places there are that pacing, and that a reserve does not hold is counted then: they are
  -- written one by one.
  local function counts() return rules.aging > 0 end

  local function count(priority, places)
    local better = state.better
    if not counts() then return end
    if priority <= rules.pace_worse_than then better[1] = better[1] + places end
    if priority <= rules.reserve_priority then better[2] = better[2] + places end
  end

  -- Whether a ticket that these do not hold waits behind the head.
  function queue.spares_pace() return counts() and state.better[1] > 0 end
  function queue.spares_reserve() return counts() and state.better[2] > 0 end

  function queue.write_later()
    if #later == 0 then return end
    local written = store.write_all(later_command, QUEUE, later)
    if later_command == 'ZREM' then written = -written end
    state.size = state.size + written
    step.own.waiting = step.own.waiting + written
    later = {}
    return written
  end

  -- A ticket of the sender's enters. `told`: with fair shares, where its turn began, if it has had one.
  function queue.enter(place, told, entered)
    if rules.fair then
      if fair.enter(place, told, entered) then step.own.waiting = step.own.waiting + 1 end
      return
    end
    if later_command ~= 'ZADD' then queue.write_later() end
    later_command = 'ZADD'
    later[#later + 1] = queue.score(place.priority, place.arrival)
    later[#later + 1] = member_of(place)
    if counts() then count(place.priority, queue.write_later()) end
  end

  -- A ticket of the sender's leaves.
  function queue.leave(place)
    if rules.fair then
      if fair.leave(place, false) then step.own.waiting = step.own.waiting - 1 end
      return
    end
    if later_command ~= 'ZREM' then queue.write_later() end
    later_command = 'ZREM'
    later[#later + 1] = member_of(place)
    if counts() then count(place.priority, queue.write_later()) end
  end

  -- With fair shares: the first of a line comes to its place, or leaves it.
  function queue.put(place)
    store.write('ZADD', QUEUE, queue.score(place.priority, place.start), member_of(place))
    state.size = state.size + 1
    count(place.priority, 1)
    front, at, part = {}, 1, 1
  end

  function queue.cut(place)
    store.write('ZREM', QUEUE, member_of(place))
    state.size = state.size - 1
    count(place.priority, -1)
    front, at, part = {}, 1, 1
  end

  -- Whether so many may wait. Those not written yet may be there already: only where it matters is it found out.
  function queue.is_full(most)
    if group.depth() + #later / 2 >= most then queue.write_later() end
    return group.depth() >= most
  end

  -- Whether a place's session has ended or lost its place in the queue.
  local function is_ghost(place)
    local owner = sessions:get(place.session)
    return not owner or owner.silent
  end

  -- With their sessions known, and their lines.
  local function known(places)
    local owners = {}
    for i, place in ipairs(places) do owners[i] = place.session end
    sessions:fetch(owners)
    if rules.fair then fair.fetch(places) end
    return places
  end

  -- Places in order, by rank.
  local function read(from, to)
    local found, places = call('ZRANGE', QUEUE, from, to, 'WITHSCORES'), {}
    for i = 1, #found, 2 do places[#places + 1] = place_of(found[i], found[i + 1]) end
    return known(places)
  end

  function queue.remove(place)
    if rules.fair then
      fair.leave(place, false)
    else
      store.write('ZREM', QUEUE, place.member)
      state.size = state.size - 1
      count(place.priority, -1)
    end
    queue.left(place)
  end

  -- A place has left: its session has one less.
  function queue.left(place)
    local owner = sessions:get(place.session)
    owner.waiting = owner.waiting - 1
    sessions:put(place.session, owner)
  end

  local function may_drop()
    if step.dropped == MAX_ORPHANS then step.more = true end
    return step.dropped < MAX_ORPHANS
  end

  -- The last place that is no ghost; ghosts behind it are dropped. nil: there are more of them than one step drops (P16).
  local function last()
    while true do
      local from = max(state.size - (state.ghosts > 0 and 64 or 1), 0)
      local places = read(from, state.size - 1)
      local keep = #places
      while keep > 0 and is_ghost(places[keep]) and may_drop() do
        keep, step.dropped = keep - 1, step.dropped + 1
      end
      local ghosts = #places - keep
      if ghosts > 0 then
        store.write('ZREMRANGEBYRANK', QUEUE, from + keep, from + #places - 1)
        for i = keep + 1, #places do count(places[i].priority, -1) end
        state.ghosts, state.size = state.ghosts - ghosts, state.size - ghosts
      end
      if keep > 0 then return not is_ghost(places[keep]) and places[keep] or nil end
    end
  end

  -- What happens when a ticket comes into a full queue: REFUSE, as it is the worst itself; or the one that has to go, the last or with fair shares the newest of
  -- the longest line of the worst priority; or nil: more orphaned entries stand behind than one step drops, and it comes in above the cap.
  function queue.overflow(place)
    if not rules.fair then
      local worst, score = last(), queue.score(place.priority, place.arrival)
      local better = worst and (score < worst.score or (score == worst.score and not store.before(worst.member, member_of(place))))
      return better and worst or worst and queue.REFUSE
    end
    while true do
      local newest, own = fair.worst(place)
      if not newest then return queue.REFUSE end
      known({ newest })
      if not is_ghost(newest) then return (not own or newest.arrival >= place.arrival) and newest or queue.REFUSE end
      if not may_drop() then return nil end
      step.dropped = step.dropped + 1
      fair.leave(newest, false)
      state.ghosts = state.ghosts - 1
    end
  end

  function queue.save()
    queue.write_later()
    if taken > 0 then store.write('ZREMRANGEBYRANK', QUEUE, 0, taken - 1) end
    front, at, taken = {}, 1, 0
  end

  function queue.first()
    if not front[at] and state.size > 0 then
      queue.save()
      front = read(0, min(part, state.size) - 1)
      part = min(part * 4, 128)
    end
    return front[at]
  end

  -- `served`: it is granted.
  function queue.take_first(served)
    if rules.fair then
      fair.leave(front[at], served)
      return
    end
    count(front[at].priority, -1)
    at, taken, state.size = at + 1, taken + 1, state.size - 1
  end

  -- The first place that is no ghost; ghosts before it are dropped, at most MAX_ORPHANS in one step (P16).
  function queue.head()
    while true do
      local place = queue.first()
      if not place or not is_ghost(place) then return place end
      if not may_drop() then return nil end
      step.dropped = step.dropped + 1
      queue.take_first(false)
      state.ghosts = state.ghosts - 1
    end
  end

  -- Drops the ghosts among these; returns where to go on.
  local function sweep_these(places, from, most)
    local ghosts, members = 0, {}
    for _, place in ipairs(places) do
      if is_ghost(place) then
        ghosts = ghosts + 1
        if rules.fair then
          fair.leave(place, false)
        else
          members[ghosts] = place.member
          count(place.priority, -1)
        end
      end
    end
    state.size = state.size - store.write_all('ZREM', QUEUE, members)
    state.ghosts = state.ghosts - ghosts
    step.dropped = step.dropped + ghosts
    return #places < most and 0 or from + most - ghosts
  end

  -- Looks at some places, and with fair shares at as many tickets behind the first of their line, for those of ended sessions, so that they do not stay for ever behind
  -- better ones.
  function queue.sweep()
    if state.ghosts == 0 then
      state.sweep, state.sweep_behind = 0, 0
      return
    end
    queue.save()
    part = 1
    -- At no more than may be dropped.
    local function most() return min(MAX_SWEEP, MAX_ORPHANS - step.dropped) end
    local places, room = {}, most()
    if room > 0 and state.sweep < state.size then places = read(state.sweep, min(state.sweep + room, state.size) - 1) end
    state.sweep = sweep_these(places, state.sweep, room)
    room = most()
    if rules.fair then state.sweep_behind = sweep_these(known(fair.look(state.sweep_behind, room)), state.sweep_behind, room) end
  end
end)

-- Fair shares: within a priority tenants are served in turns, by start-time fair queueing (src/transition/fair.rs) ----------
-- A tenant's tickets of one priority stand in a line, and only the first has a place in the queue. Lines: those behind, by priority, tenant, arrival; score 0.
-- Lengths: lines with tickets, by priority and what they cost together; score 0. Idle: lines without tickets, by when they lost the last one.

fair = part(function(fair)
  -- By priority and tenant: where the last turn that was served ends; its tickets; what they cost together; number of its last entry; when its last ticket left; the
  -- first ticket ('': none), and its start. In a tenant's place all of a priority: its finish is the latest start that was served since it has had tickets.
  local lines = store.hash(KEYS[17])
  local FINISH, WAITING, TOTAL, ENTERED, SINCE, FIRST, START = 1, 2, 3, 4, 5, 6, 7
  -- Name -> when it lost its last ticket, false: it has some. Member of the lengths -> whether it is one. Written before the order is read.
  local moves, lengths = {}, {}
  local FORGET = 1000

  local function name_of(priority, tenant) return format('%010d%016d', priority + 2147483648, tenant) end

  local function names_of(place) return name_of(place.priority, place.tenant), name_of(place.priority, 2 ^ 52) end

  local function line_of(name) return lines:get(name) or { 0, 0, 0, 0, 0, '', 0 } end

  -- Tickets sort by line, then arrival: digits only.
  local function ticket_of(place)
    return format(
      '%010d%016d%016d%s%016d%016d%016d%016d', place.priority + 2147483648, place.tenant, place.arrival, place.session, place.input,
      place.output, place.cost, place.tried
    )
  end

  local function place_of(ticket, start)
    local function digits(from) return tonumber(ticket:sub(from, from + 15)) end
    return {
      priority = tonumber(ticket:sub(1, 10)) - 2147483648, tenant = digits(11), arrival = digits(27), session = ticket:sub(43, 58), input = digits(59),
      output = digits(75), cost = digits(91), tried = digits(107), start = start,
    }
  end

  function fair.fetch(places)
    local names = {}
    for _, place in ipairs(places) do
      names[#names + 1], names[#names + 2] = names_of(place)
    end
    lines:fetch(names)
  end

  local function write_lengths()
    store.move_all(LENGTHS, lengths)
    lengths = {}
  end

  local function write_idle()
    store.move_all(IDLE, moves)
    moves = {}
  end

  function fair.save()
    write_lengths()
    write_idle()
    lines:save()
  end

  function fair.clear()
    lines:clear()
    for _, key in ipairs({ IDLE, LINES, LENGTHS }) do store.write('UNLINK', key) end
    moves, lengths = {}, {}
    state.idle, state.behind, state.sweep_behind = 0, 0, 0
  end

  function fair.waiting(place) return line_of(names_of(place))[WAITING] end

  -- How many tickets of better priorities have no place in the queue.
  function fair.behind_better_than(priority) return call('ZLEXCOUNT', LINES, '-', format('(%010d', priority + 2147483648)) end

  -- What starts are told as: above 0.
  function fair.told(start) return max(start, rules.aging == 0 and state.floor or 0, 1) end

  -- How long a turn is: with aging it is worth as much waiting as a level of priority.
  local function length_of(cost) return rules.aging == 0 and cost or min(floor(cost * rules.aging / 10000), 2 ^ 52) end

  -- A line's first ticket comes to its place. Its turn begins at `start` unless it says when it was (a retry).
  local function step_forward(line, ticket, start, told)
    local place = place_of(ticket)
    start = max(rules.aging == 0 and start or place.arrival, line[FINISH])
    if told > 0 then start = min(start, max(told, rules.aging == 0 and 0 or place.arrival)) end
    if rules.aging == 0 and (start <= state.floor or state.recovery) then start = 0 end
    place.start = start
    line[FIRST], line[START] = ticket, start
    queue.put(place)
  end

  local function stand_behind(ticket)
    local new = store.write('ZADD', LINES, 0, ticket)
    state.behind = state.behind + new
    return new > 0
  end

  local function come_from_behind(ticket)
    local found = store.write('ZREM', LINES, ticket)
    state.behind = state.behind - found
    return found > 0
  end

  local function change_length(name, line, cost, tickets)
    local function member() return format('%s%016d%s', name:sub(1, 10), line[TOTAL], name:sub(11)) end
    lengths[member()] = false
    line[TOTAL] = line[TOTAL] + cost
    if line[WAITING] + tickets > 0 then lengths[member()] = 0 end
  end

  local function come(name, line)
    if line[SINCE] > 0 then
      moves[name], state.idle = false, state.idle - 1
      line[SINCE] = 0
    end
    line[WAITING] = line[WAITING] + 1
    lines:put(name, line)
  end

  local function go(name, line)
    line[WAITING] = line[WAITING] - 1
    if line[WAITING] == 0 then
      line[SINCE] = state.clock
      moves[name], state.idle = state.clock, state.idle + 1
    end
    lines:put(name, line)
  end

  -- A ticket takes its place in its line; false if it was there.
  function fair.enter(place, told, entered)
    local name, name_of_all = names_of(place)
    local line, all, ticket = line_of(name), line_of(name_of_all), ticket_of(place)
    -- Where nobody waits all that was is over.
    local served, first = all[WAITING] > 0 and all[FINISH] or state.horizon, line[FIRST]
    if first == '' then
      if line[ENTERED] <= state.era then line[FINISH] = 0 end
      step_forward(line, ticket, served, told)
    elseif ticket < first then
      stand_behind(first)
      queue.cut(place_of(first, line[START]))
      step_forward(line, ticket, line[START], told)
    elseif ticket == first or not stand_behind(ticket) then
      return false
    end
    change_length(name, line, place.cost, 1)
    line[ENTERED] = entered
    come(name, line)
    come(name_of_all, all)
    if all[WAITING] == 1 then all[FINISH] = state.recovery and 0 or served end
    return true
  end

  -- A ticket leaves its line; `served`: it is granted. False if it was not there.
  function fair.leave(place, served)
    local name, name_of_all = names_of(place)
    local line, all, ticket = lines:get(name), line_of(name_of_all), ticket_of(place)
    if not line then return false end
    if line[FIRST] == ticket then
      local start = line[START]
      queue.cut(place_of(ticket, start))
      if served then
        local began = fair.told(start)
        line[FINISH] = max(line[FINISH], min(began + length_of(place.cost), NEVER - 1))
        state.horizon = max(state.horizon, line[FINISH])
        all[FINISH] = max(all[FINISH], began)
        start = all[FINISH]
      end
      line[FIRST] = ''
      local after = call('ZRANGEBYLEX', LINES, '[' .. name, '(' .. name .. ':', 'LIMIT', 0, 1)[1]
      if after then
        come_from_behind(after)
        step_forward(line, after, start, 0)
      end
    elseif not come_from_behind(ticket) then
      return false
    end
    change_length(name, line, -place.cost, -1)
    go(name, line)
    go(name_of_all, all)
    return true
  end

  -- The newest ticket of the line that a ticket that comes should not have made longer, the longest of the worst priority; and whether that is its own line.
  function fair.worst(place)
    write_lengths()
    local name = names_of(place)
    local own = line_of(name)[TOTAL] + place.cost
    local longest = call('ZREVRANGEBYSCORE', LENGTHS, 0, 0, 'LIMIT', 0, 1)[1]
    -- Digits only, so they compare as numbers.
    local own_length = format('%s%016d', name:sub(1, 10), own)
    local other = longest and own_length < longest:sub(1, 26) and longest:sub(1, 10) .. longest:sub(27)
    local of = other or name
    local newest = call('ZREVRANGEBYLEX', LINES, '(' .. of .. ':', '[' .. of, 'LIMIT', 0, 1)[1]
    if not newest then newest = line_of(of)[FIRST] end
    return newest ~= '' and place_of(newest) or nil, of == name
  end

  -- Tickets behind the first of their line, by rank.
  function fair.look(from, most)
    local places = {}
    if from >= state.behind or most == 0 then return places end
    for i, ticket in ipairs(call('ZRANGE', LINES, from, min(from + most, state.behind) - 1)) do places[i] = place_of(ticket) end
    return places
  end

  -- Forgets lines that have had no ticket for as long as anything is remembered, at most 1,000 in one step.
  function fair.forget()
    write_idle()
    local old = call('ZRANGEBYSCORE', IDLE, '-inf', format('%.0f', state.clock - rules.memory), 'LIMIT', 0, FORGET)
    for _, name in ipairs(old) do
      moves[name] = false
      lines:put(name, false)
    end
    state.idle = state.idle - #old
    step.more = step.more or #old == FORGET
  end
end)

-- Windows: entries by kind and number, sorted by the time when they leave their window; and what counts, by deployment ---

windows = part(function(windows)
  local entries, totals = store.hash(KEYS[14]), store.hash(KEYS[15])
  -- Arrays, as there are many. An entry: its deployment, cost, time, how many of its deployment's windows, the shorter ones, it has left; and whether its time is that of
  -- its dispatch (P8): nil, it was reported; assumed, the end of its session; open, it was not reported yet, and it is the time of its grant.
  -- A total: open calls, then requests, input and output tokens of each window.
  -- The last: under which lists of windows it is counted. A list that was in force up to a generation is kept in `state.former`, with what it still counts, until the recount has
  -- come to all of that.
  local DEPLOYMENT, REQUESTS, INPUT, OUTPUT, AT, STAGE, DISPATCH, GENERATION = 1, 2, 3, 4, 5, 6, 7, 8
  local ASSUMED, OPEN = 1, 2
  -- Entry -> when it leaves, false: it does not wait. Written before the order is read.
  local moves = {}
  local EXPIRE = 1000

  function windows.grant(number) return '0' .. store.id(number) end
  function windows.excess(number) return '1' .. store.id(number) end
  function windows.phantom(number) return '2' .. store.id(number) end

  local function write_moves()
    store.move_all(WINDOWS, moves)
    moves = {}
  end

  function windows.save()
    write_moves()
    entries:save()
    totals:save()
  end

  function windows.fetch(keys) entries:fetch(keys) end

  -- Everything about the deployments is needed sooner or later.
  function windows.fetch_totals() totals:fetch(group.deployments()) end

  local function raw_total(deployment) return totals:get(deployment) or { 0 } end

  -- By which list of windows an entry of this generation is counted (nil: the one in force), and what it passes through. An entry of a deployment that the rules do not
  -- name is kept for as long as any.
  local function list_of(deployment, generation)
    for _, former in ipairs(state.former) do
      if former.generation >= generation and former.deployment == deployment then return former, former.windows end
    end
    local known = by_id[deployment]
    return nil, known and known.windows or { { span = rules.memory } }
  end

  local function list_of_entry(entry) return list_of(entry[DEPLOYMENT], entry[GENERATION]) end

  -- The generation of what is counted now. A deployment that no rules name any more goes on by the list that it was last counted by.
  local function generation_for(deployment)
    local generation = state.generation
    if by_id[deployment] then return generation end
    for _, former in ipairs(state.former) do
      if former.deployment == deployment then generation = former.generation end
    end
    return generation
  end

  -- What counts now of a deployment. What is not recounted yet counts as in the next longer window it was counted in: rather too much.
  local function total_of(deployment)
    local total, known = raw_total(deployment), by_id[deployment]
    if #state.former == 0 or not known then return total end
    local all
    for _, former in ipairs(state.former) do
      if former.deployment == deployment then
        if not all then
          all = { total[1] }
          for i = 2, 3 * #known.windows + 1 do all[i] = total[i] or 0 end
        end
        for i, window in ipairs(known.windows) do
          local at = floor((#former.totals - 1) / 3)
          for k = #former.windows, 1, -1 do
            if former.windows[k].span >= window.span then at = k end
          end
          for kind = -1, 1 do all[3 * i + kind] = all[3 * i + kind] + (former.totals[3 * at + kind] or 0) end
        end
      end
    end
    return all or total
  end

  function windows.open(deployment) return total_of(deployment)[1] end

  function windows.add_open(deployment, calls)
    local total = raw_total(deployment)
    total[1] = total[1] + calls
    totals:put(deployment, total)
  end

  function windows.close_all()
    for deployment, total in pairs(totals:all()) do
      if total then windows.add_open(deployment, -total[1]) end
    end
  end

  -- Requests, input and output tokens that count in the index-th window.
  function windows.used(deployment, index)
    local total = total_of(deployment)
    return total[3 * index - 1] or 0, total[3 * index] or 0, total[3 * index + 1] or 0
  end

  -- `grow`: what is not counted yet by a former list is not, while the group recovers (its totals may be untrue).
  local function count(former, deployment, requests, input, output, from, to, grow)
    local total = former and former.totals or raw_total(deployment)
    if grow or not former then
      for i = #total + 1, 3 * to + 1 do total[i] = 0 end
    end
    for i = from + 1, to do
      if total[3 * i] then
        total[3 * i - 1] = total[3 * i - 1] + requests
        total[3 * i] = total[3 * i] + input
        total[3 * i + 1] = total[3 * i + 1] + output
      end
    end
    if not former then totals:put(deployment, total) end
  end

  -- What may be filled of a limit by whom so many millionths are left (`left`): one unit at least, or it would never go.
  function windows.part_of(limit, left)
    if limit <= 0 or left == WHOLE then return limit end
    return max(floor(limit * left / WHOLE), 1)
  end

  local function within(limit, used, left) return limit == NONE or used <= windows.part_of(limit, left) end

  -- Whether a ticket fits under each limit of a window, on top of what counts: `total` as above.
  function windows.fits(window, i, total, demand)
    local limits, left = window.limits, demand.left
    local input, output = (total[3 * i] or 0) + demand.input, (total[3 * i + 1] or 0) + demand.output
    return within(limits[1], (total[3 * i - 1] or 0) + 1, left), within(limits[2], input + output, left), within(limits[3], input, left),
      within(limits[4], output, left)
  end

  local function fits_all(deployment, total, demand)
    for i, window in ipairs(deployment.windows) do
      local requests, tokens, input, output = windows.fits(window, i, total, demand)
      if not (requests and tokens and input and output) then return false end
    end
    return true
  end

  windows.total_of = total_of

  function windows.free(deployment, demand) return fits_all(deployment, total_of(deployment.id), demand) end

  -- Whether a ticket fits on an idle deployment.
  function windows.ever_fits(deployment, demand) return deployment.concurrency ~= 0 and fits_all(deployment, {}, demand) end

  -- A deployment whose grants are counted.
  function windows.counts(deployment)
    local known = by_id[deployment]
    return known and #known.windows > 0 and known
  end

  function windows.remove(key)
    local entry = entries:get(key)
    if not entry then return end
    entries:put(key, false)
    moves[key] = false
    local former, spans = list_of_entry(entry)
    count(former, entry[DEPLOYMENT], -entry[REQUESTS], -entry[INPUT], -entry[OUTPUT], entry[STAGE], #spans)
    return entry
  end

  -- Undoes a grant's debit.
  function windows.refund(key)
    local entry = windows.remove(key)
    if entry and group.paces() then pace.take_back(entry[DEPLOYMENT], entry[REQUESTS], entry[INPUT], entry[OUTPUT]) end
  end

  -- Adds an entry whose key is new. While the group recovers none leaves, so that what is told of them can be held against the newest view (P13).
  function windows.add(key, deployment, requests, input, output, at, dispatch)
    local generation, stage, now = generation_for(deployment), 0, state.recovery and 0 or state.clock
    local former, spans = list_of(deployment, generation)
    while dispatch ~= OPEN and stage < #spans and at + spans[stage + 1].span <= now do stage = stage + 1 end
    if stage == #spans then return end
    moves[key] = at + spans[stage + 1].span
    -- All that counts in a shorter window counts in the longest one, too.
    local counted = former and former.totals or raw_total(deployment)
    local function left(amount, kind) return min(amount, TOTAL - (counted[3 * #spans + kind] or 0)) end
    requests, input, output = left(requests, -1), left(input, 0), left(output, 1)
    count(former, deployment, requests, input, output, stage, #spans, true)
    entries:put(key, { deployment, requests, input, output, at, stage, dispatch or false, generation })
  end

  function windows.add_open_charge(key, deployment, input, output) windows.add(key, deployment, 1, input, output, state.clock, OPEN) end

  -- Adds an entry, or replaces the one of the same key.
  function windows.insert(key, deployment, requests, input, output, at, dispatch)
    windows.remove(key)
    windows.add(key, deployment, requests, input, output, at, dispatch)
  end

  -- When an entry's call was dispatched, as reported; 0 where that is not known.
  function windows.reported(key)
    local entry = entries:get(key)
    return entry and not entry[DISPATCH] and entry[AT] or 0
  end

  -- P8 (the dispatch is reported): an open charge gets its time, which is not before its grant.
  function windows.date(key, at, dispatch)
    local entry = entries:get(key)
    if not entry or entry[DISPATCH] ~= OPEN then return end
    windows.insert(key, entry[DEPLOYMENT], entry[REQUESTS], entry[INPUT], entry[OUTPUT], max(at, entry[AT]), dispatch)
  end

  -- The session has ended: what was not reported was dispatched by now, or never will be (P9).
  function windows.assume_dispatched(key, at) windows.date(key, at, ASSUMED) end

  -- Shrinks an entry's tokens in place, each kind on its own; never grows them (P14).
  function windows.shrink(key, input, output)
    local entry = entries:get(key)
    if not entry then return end
    local less_input, less_output = max(entry[INPUT] - input, 0), max(entry[OUTPUT] - output, 0)
    if less_input == 0 and less_output == 0 then return end
    local former, spans = list_of_entry(entry)
    count(former, entry[DEPLOYMENT], 0, -less_input, -less_output, entry[STAGE], #spans)
    if group.paces() then pace.take_back(entry[DEPLOYMENT], 0, less_input, less_output) end
    entry[INPUT], entry[OUTPUT] = entry[INPUT] - less_input, entry[OUTPUT] - less_output
    entries:put(key, entry)
  end

  -- Of those read in order (from i on) and those that come again for their next window, the first to leave: time, key, stage; and the next i.
  local function next_to_leave(found, i, again)
    local key, at, other = found[i], tonumber(found[i + 1]), again[1]
    if other and (not key or other.at < at or (other.at == at and other.key < key)) then
      table.remove(again, 1)
      return other.at, other.key, other.stage, i
    end
    if key then return at, key, entries:get(key)[STAGE], i + 2 end
  end

  local function come_again(again, at, key, stage)
    local i = #again
    while i > 0 and (again[i].at > at or (again[i].at == at and again[i].key > key)) do i = i - 1 end
    table.insert(again, i + 1, { at = at, key = key, stage = stage })
  end

  local function fetch_found(found)
    local keys = {}
    for i = 1, #found, 2 do keys[#keys + 1] = found[i] end
    entries:fetch(keys)
  end

  -- Forgets the lists that count nothing any more.
  local function drop_empty()
    if #state.former == 0 or state.recount then return end
    local kept = {}
    for _, former in ipairs(state.former) do
      local counts = false
      for i = 2, #former.totals do counts = counts or former.totals[i] ~= 0 end
      if counts then kept[#kept + 1] = former end
    end
    state.former = kept
  end

  -- Lets at most 1,000 entries leave a window whose time is up (P16). Open ones stay, and are looked at again later.
  function windows.expire()
    write_moves()
    local found = call('ZRANGEBYSCORE', WINDOWS, '-inf', format('%.0f', state.clock), 'WITHSCORES', 'LIMIT', 0, EXPIRE)
    if #found == 0 then return drop_empty() end
    fetch_found(found)
    local expired, i, again = 0, 1, {}
    while expired < EXPIRE do
      local _, key, stage, after = next_to_leave(found, i, again)
      if not key then break end
      i, expired = after, expired + 1
      local entry = entries:get(key)
      local former, spans = list_of_entry(entry)
      local following = spans[stage + 2]
      if entry[DISPATCH] == OPEN then
        moves[key] = state.clock + group.look_again()
      else
        count(former, entry[DEPLOYMENT], -entry[REQUESTS], -entry[INPUT], -entry[OUTPUT], stage, stage + 1)
        if following then
          local at = entry[AT] + following.span
          entry[STAGE], moves[key] = stage + 1, at
          if at <= state.clock then come_again(again, at, key, stage + 1) end
          entries:put(key, entry)
        else
          moves[key] = false
          entries:put(key, false)
        end
      end
    end
    drop_empty()
    step.more = step.more or expired == EXPIRE
  end

  local function retire(deployment, spans)
    local total = raw_total(deployment)
    if totals:get(deployment) then totals:put(deployment, total[1] > 0 and { total[1] } or false) end
    total[1] = 0
    state.former[#state.former + 1] = { generation = state.generation, deployment = deployment, windows = spans, totals = total }
  end

  local function begin_recount()
    state.generation = state.generation + 1
    state.recount = #state.former > 0 and 0 or nil
  end

  -- Other lists of windows are in force: what is counted by the former ones is recounted, in parts (P16), and counts by those until then.
  function windows.relist(former, alike)
    for _, deployment in ipairs(former.deployments) do
      if not alike[deployment.id] then retire(deployment.id, deployment.windows) end
    end
    begin_recount()
  end

  -- The group recovers: everything is recounted, without the charges whose dispatch was not reported. Totals may be untrue here, after a write that was cut short, so none is used: nothing is
  -- granted before the recount has ended.
  function windows.recount_all()
    for _, deployment in ipairs(rules.deployments) do
      retire(deployment.id, deployment.windows)
      for _, former in ipairs(state.former) do
        if former.deployment == deployment.id then former.totals = { 0 } end
      end
    end
    begin_recount()
  end

  -- A part of all entries, from a time of the order on (P16): their keys, read; and where the next part begins.
  function windows.part(from)
    local PART = 200
    write_moves()
    local function from_to(least, most, ...) return call('ZRANGEBYSCORE', WINDOWS, format('%.0f', least), format('%.0f', most), 'WITHSCORES', ...) end
    local found = from_to(from, NEVER, 'LIMIT', 0, PART)
    local last, keys = tonumber(found[#found]), {}
    local ended = #found < 2 * PART
    for i = 1, #found, 2 do
      if ended or tonumber(found[i + 1]) < last then keys[#keys + 1] = found[i] end
    end
    if not ended then
      -- All of one time, so that the time tells where to go on.
      local of_time = from_to(last, last)
      for i = 1, #of_time, 2 do keys[#keys + 1] = of_time[i] end
    end
    entries:fetch(keys)
    return keys, not ended and last + 1 or nil
  end

  -- Recounts a part.
  function windows.recount()
    local recovering = state.recovery ~= nil
    local keys, following = windows.part(state.recount)
    for _, key in ipairs(keys) do
      local entry = entries:get(key)
      if entry then
        local void = recovering and entry[DISPATCH] == OPEN
        if void or (list_of_entry(entry) and by_id[entry[DEPLOYMENT]]) then
          windows.remove(key)
          if not void then windows.add(key, entry[DEPLOYMENT], entry[REQUESTS], entry[INPUT], entry[OUTPUT], entry[AT], entry[DISPATCH]) end
        end
      else
        moves[key] = false
      end
    end
    state.recount = following
    if following then step.more = true else drop_empty() end
  end

  -- P13: adds up what is reported of what counted when a view was taken, a part in each step (P16): `known.by`, by deployment. `used`: the view's, by deployment.
  function windows.sum_known(known, number, at, used)
    local keys, following = windows.part(known.from)
    for _, key in ipairs(keys) do
      local entry = entries:get(key)
      local of = entry and used[entry[DEPLOYMENT]]
      if of then
        local is_grant = key:sub(1, 1) == '0'
        local then_already = is_grant and tonumber(key:sub(2)) <= number or not is_grant and entry[AT] <= at
        if then_already and (entry[DISPATCH] == OPEN or entry[AT] + of[3] > at) then
          local sum = known.by[entry[DEPLOYMENT]] or { 0, 0, 0 }
          known.by[entry[DEPLOYMENT]] = { sum[1] + entry[REQUESTS], sum[2] + entry[INPUT], sum[3] + entry[OUTPUT] }
        end
      end
    end
    known.from = following
  end

  -- When one of the blocked deployments (by id, and since when each may be used otherwise) has room for the demand, if nothing else happens and none is free
  -- before `best`. Exact, unless more than 64 entries have to leave before, or one of them is open: then a lower bound.
  function windows.next_free(blocked, demand, best)
    local WALK = 64
    local waiting, left = {}, 0
    for id, one in pairs(blocked) do
      local copy = {}
      for i, value in ipairs(total_of(id)) do copy[i] = value end
      waiting[id], left = { total = copy, from = one.from, of = one.deployment }, left + 1
    end
    if left == 0 then return best end
    write_moves()
    local found, i, again, from, ended = {}, 1, {}, 0, false
    for walked = 0, WALK do
      if not found[i] and not ended then
        -- A few mostly tell; if not, all the others that may be looked at.
        local to = from == 0 and 7 or WALK
        found, i = call('ZRANGE', WINDOWS, from, to, 'WITHSCORES'), 1
        ended, from = to == WALK or #found < 2 * (to - from + 1), to + 1
        if found[#found - 1] == '' then
          -- The last one: it keeps the key alive.
          found[#found], found[#found - 1], ended = nil, nil, true
        end
        fetch_found(found)
      end
      local at, key, stage, after = next_to_leave(found, i, again)
      if not key or left == 0 or (best and best <= at) then break end
      if walked == WALK then return at end
      i = after
      local entry = entries:get(key)
      local deployment = entry[DEPLOYMENT]
      local former, spans = list_of_entry(entry)
      local following, blocked_one = spans[stage + 2], waiting[deployment]
      if following then come_again(again, max(entry[AT] + following.span, at), key, stage + 1) end
      -- Not recounted yet: no more than a lower bound.
      if blocked_one and former then return min(best or at, at) end
      if blocked_one then
        local total = blocked_one.total
        -- Amounts have the same order, and begin at the same index, in an entry and in a total of one window.
        for kind = REQUESTS, OUTPUT do total[3 * stage + kind] = total[3 * stage + kind] - entry[kind] end
        if fits_all(blocked_one.of, total, demand) then
          at = max(at, blocked_one.from)
          best = min(best or at, at)
          waiting[deployment], left = nil, left - 1
        end
      end
    end
    return best
  end
end)

-- Pacing: a GCRA beside each window limit. All grants advance its time; only tickets that are paced wait for it -----------

pace = part(function(pace)
  -- By deployment, for each window, and each kind of limit: when the next unit would be due if everything granted so far had been spread evenly.
  local due = store.hash(KEYS[16])

  function pace.save() due:save() end

  -- Reads at once what is needed sooner or later.
  function pace.fetch() due:fetch(group.deployments()) end

  -- For how long so many are enough at a limit's rate, at most its window.
  local function worth(window, kind, amount)
    local limit = window.limits[kind]
    if limit <= 0 then return 0 end
    return floor(min(amount * window.span / limit, window.span))
  end

  -- What such a cost counts against each kind of limit.
  local function amounts(requests, input, output) return { requests, input + output, input, output } end

  -- Something was granted, or used above its reservation.
  function pace.advance(deployment, requests, input, output)
    local times, cost = due:get(deployment.id) or {}, amounts(requests, input, output)
    for i, window in ipairs(deployment.windows) do
      for kind, amount in ipairs(cost) do
        local at = 4 * i - 4 + kind
        -- What is used beyond a limit holds nobody longer than its window does.
        times[at] = min(max(times[at] or 0, state.clock) + worth(window, kind, amount), state.clock + window.span)
      end
    end
    due:put(deployment.id, times)
  end

  -- A grant was not used, or not all of it.
  function pace.take_back(deployment, requests, input, output)
    local of, cost = by_id[deployment], amounts(requests, input, output)
    local times = of and due:get(deployment)
    if not times then return end
    for i, window in ipairs(of.windows) do
      if not times[4 * i] then break end
      for kind, amount in ipairs(cost) do
        local at = 4 * i - 4 + kind
        times[at] = max(times[at] - worth(window, kind, amount), 0)
      end
    end
    due:put(deployment, times)
  end

  -- When a paced ticket of so many tokens may go: what it is worth itself is its tolerance.
  function pace.due(deployment, input, output)
    local times, cost, latest = due:get(deployment.id) or {}, amounts(1, input, output), 0
    for i, window in ipairs(deployment.windows) do
      if not times[4 * i] then break end
      for kind, amount in ipairs(cost) do latest = max(latest, times[4 * i - 4 + kind] - worth(window, kind, amount)) end
    end
    return latest
  end
end)

-- Sessions: who is believed, and what becomes of those who fall silent (P1, P7, P10) ----------------------------------

-- Open calls: permits that are out --------------------------------------------------------------------------------------
-- Members are session, sequence number of the grant, and deployment, so that what an ended session leaves is found in parts (P16); score 0.

calls = part(function(calls)
  local known, moves = {}, {}

  local function member_of(id, number, deployment) return id .. store.id(number) .. deployment end

  local function is_there(member)
    if known[member] == nil then known[member] = call('ZSCORE', CALLS, member) and true or false end
    return known[member]
  end

  local function move(member, deployment, there)
    if is_there(member) == there then return false end
    known[member], moves[member] = there, there and 0
    windows.add_open(deployment, there and 1 or -1)
    return true
  end

  -- Reads many at once: { session, number, deployment } each.
  function calls.fetch(wanted)
    local members = {}
    for _, of in ipairs(wanted) do
      local member = member_of(of[1], of[2], of[3])
      -- What is known may have changed in this step.
      if known[member] == nil then members[#members + 1] = member end
    end
    if #members == 0 then return end
    for i, score in ipairs(call('ZMSCORE', CALLS, unpack(members))) do known[members[i]] = score and true or false end
  end

  function calls.add(id, number, deployment) move(member_of(id, number, deployment), deployment, true) end

  -- A grant of this step: its number is new, so it cannot be there.
  function calls.add_new(id, number, deployment)
    known[member_of(id, number, deployment)] = false
    calls.add(id, number, deployment)
  end

  -- Returns whether it was there.
  function calls.remove(id, number, deployment) return move(member_of(id, number, deployment), deployment, false) end

  function calls.save()
    store.move_all(CALLS, moves)
    moves = {}
  end

  -- Those whose member begins so, in order: { number, deployment } each.
  local function beginning(prefix, most)
    calls.save()
    local found = call('ZRANGEBYLEX', CALLS, '[' .. prefix, '[' .. prefix .. '\255', 'LIMIT', 0, most)
    for i, member in ipairs(found) do
      known[member] = true
      found[i] = { number = tonumber(member:sub(17, 32)), deployment = member:sub(33) }
    end
    return found
  end

  -- The first calls of a session, by their numbers.
  function calls.first_of(id, most) return beginning(id, most) end

  -- The deployment of a call.
  function calls.deployment(id, number)
    local found = beginning(id .. store.id(number), 1)[1]
    return found and found.deployment
  end

  function calls.clear()
    store.write('UNLINK', CALLS)
    known, moves = {}, {}
  end
end)

session = part(function(session)
  -- Whether a session's instance could call a deployment.
  function session.knows(id, deployment)
    local owner = sessions:get(id)
    if not owner then return false end
    if #rules.configurations == 1 then return true end
    for _, known in ipairs(deployments:get(id) or {}) do
      if known == deployment then return true end
    end
    return false
  end

  -- Gives a permit's concurrency back, and the probe if it was one.
  function session.release(id, number, deployment)
    if not calls.remove(id, number, deployment) then return end
    local of = health:get(deployment)
    if of and of.probe == number then
      of.probe = 0
      health:put(deployment, of)
    end
  end

  function session.give_item(id, item)
    local items = inbox:get(id) or {}
    items[#items + 1] = item
    inbox:put(id, items)
    local owner = sessions:get(id)
    if owner then group.wake(owner) end
  end

  -- P1 (a retransmission returns the stored answer). It is no sign of life: an instance that receives no answer would keep what it was granted for as long as it
  -- asks (A6).
  function session.replay(id)
    local answer = answers:get(id)
    if not answer then return RESYNC end
    return DONE, answer
  end

  -- P1, the table: RESYNC or STALE, or DONE with the stored answer, or nil: execute.
  function session.admit(replication)
    if message.epoch ~= state.epoch then
      if recovery.was_lost_since(message.epoch) then recovery.begin(replication) end
      return RESYNC
    end
    if message.hello[1] then return opening.admit(message.hello[1]) end
    local id = store.id(message.session)
    local own = sessions:get(id)
    if not own then return RESYNC end
    if message.batch == own.batch then return session.replay(id) end
    if message.batch < own.batch then return STALE end
    if own.silent then return RESYNC end
    if message.batch > own.batch + 1 then
      -- Steps that were answered are missing here: the group lost state (P3).
      recovery.begin(replication)
      return RESYNC
    end
    own.batch, own.seen = message.batch, state.lease
    step.own, step.id = own, id
  end

  function session.collect_within() return floor(rules.lease / 5) end

  -- Hands the sender what was granted to it by others' steps.
  function session.collect()
    local items = inbox:get(step.id)
    if not items then return end
    inbox:put(step.id, false)
    for _, item in ipairs(items) do
      if item.grant then
        step.grants[#step.grants + 1] = item.grant
      else
        step.refusals[#step.refusals + 1] = item.refusal
      end
    end
  end
end)

opening = part(function(opening)
  function opening.admit(hello)
    local known = group.instance(message.instance)
    if known.hello >= 0 then
      local former = sessions:get(known.session)
      if hello.number == known.hello and former and former.batch == message.batch then return session.replay(known.session) end
      if hello.number <= known.hello then return STALE end
      if rules then
        ending.finish(known.session, false)
        ending.settle_leftovers()
      end
    end
    step.id = store.id(group.draw())
    instances:put(message.instance, { hello = hello.number, session = step.id, gone = -1 })
    state.peers_version = state.peers_version + 1
    local configuration = configurations.learn(hello.rules, hello.rules_version)
    state.unsettled = true
    state.reap_at = min(state.reap_at, state.lease + group.reap_after(hello.rules.lease))
    step.own = {
      instance = message.instance, batch = message.batch, seen = state.lease, former = known.session, silent = false, peers_told = 0, configuration = configuration, waiting = 0,
    }
    local names = {}
    for i, deployment in ipairs(hello.rules.deployments) do names[i] = deployment.id end
    deployments:put(step.id, names)
  end
end)

ending = part(function(ending)
  -- How many grants and calls of ended sessions are settled in one step (P16).
  local MAX_SETTLED = 200

  -- Takes back grants that were not delivered to a session, at most `most`. Returns how many items that were.
  local function refund_inbox(id, most)
    local items = inbox:get(id) or {}
    local taken, charges = min(#items, most), {}
    for i = 1, taken do
      if items[i].grant then charges[#charges + 1] = windows.grant(items[i].grant[2]) end
    end
    windows.fetch(charges)
    for i = 1, taken do
      local granted = items[i].grant
      if granted then
        session.release(id, granted[2], granted[3])
        windows.refund(windows.grant(granted[2]))
      end
    end
    local rest = {}
    for i = taken + 1, #items do rest[#rest + 1] = items[i] end
    if taken > 0 then inbox:put(id, #rest > 0 and rest) end
    return taken
  end

  -- Releases open calls of an ended session, at most `most`. What was not reported was dispatched by its end (P8), or never will be (P9). Returns how many that were.
  local function release_calls(id, ended, most)
    local open, charges = calls.first_of(id, most), {}
    for i, of in ipairs(open) do charges[i] = windows.grant(of.number) end
    windows.fetch(charges)
    for i, of in ipairs(open) do
      windows.assume_dispatched(charges[i], ended)
      session.release(id, of.number, of.deployment)
    end
    return #open
  end

  -- Settles a part of what sessions left behind. Until then a call counts as open, and its charge stays: rather too much than too little.
  function ending.settle_leftovers()
    while state.leftovers[1] do
      local of = state.leftovers[1]
      step.settled = step.settled + refund_inbox(of.session, MAX_SETTLED - step.settled)
      if of.ended >= 0 and step.settled < MAX_SETTLED then step.settled = step.settled + release_calls(of.session, of.ended, MAX_SETTLED - step.settled) end
      if step.settled == MAX_SETTLED then break end
      table.remove(state.leftovers, 1)
    end
    if state.leftovers[1] then step.more = true end
  end

  -- Ends a session: its places count no more; its undelivered grants are refunded and its open calls released by `settle_leftovers`.
  function ending.finish(id, gone)
    local ended = sessions:get(id)
    if not ended then return end
    sessions:put(id, false)
    answers:put(id, false)
    deployments:put(id, false)
    state.peers_version = state.peers_version + 1
    state.unsettled = true
    state.leftovers[#state.leftovers + 1] = { session = id, ended = state.clock }
    state.ghosts = state.ghosts + ended.waiting
    if not gone then return end
    group.set_gone(ended.instance, state.clock)
    -- Forgets instances that have been gone for longer than anything is remembered.
    for name, known in pairs(instances:all()) do
      if known and known.gone >= 0 and known.gone + rules.memory <= state.clock then instances:put(name, false) end
    end
  end

  -- The sender says goodbye. `clean`: nothing is forgotten with it (P11).
  function ending.leave(clean)
    ending.finish(step.id, not clean)
    ending.settle_leftovers()
    local known = group.instance(message.instance)
    if clean then instances:put(message.instance, known.gone >= 0 and { hello = -1, session = '', gone = known.gone } or false) end
  end

  -- P7: ends the sessions of instances silent for too long.
  function ending.reap()
    local after, dead = group.reap_after(rules.lease), {}
    state.reap_at = NEVER
    for id, owner in pairs(sessions:all()) do
      if owner and id ~= step.id and owner.seen + after < state.lease then
        dead[#dead + 1] = id
      elseif owner then
        state.reap_at = min(state.reap_at, owner.seen + after)
      end
    end
    table.sort(dead)
    for _, id in ipairs(dead) do ending.finish(id, true) end
  end

  -- P10: takes grants back that were not delivered in time, and believes their owner no more.
  function ending.take_back()
    local within, late = session.collect_within(), {}
    state.collect_at = NEVER
    for id, items in pairs(inbox:all()) do
      local since, owner = NEVER, sessions:get(id)
      -- Of a session that is believed no more, or has ended, they are taken back already.
      if owner and not owner.silent then
        for _, item in ipairs(items or {}) do since = min(since, item.since or NEVER) end
      end
      if id ~= step.id and since + within < state.lease then
        state.ghosts = state.ghosts + owner.waiting
        owner.silent, owner.waiting = true, 0
        sessions:put(id, owner)
        late[#late + 1] = id
      elseif since < NEVER then
        state.collect_at = min(state.collect_at, since + within)
      end
    end
    table.sort(late)
    for _, id in ipairs(late) do state.leftovers[#state.leftovers + 1] = { session = id, ended = -1 } end
  end
end)

-- Recovery: one for all losses (P3, P12, P13) --------------------------------------------------------------------------

recovery = part(function(recovery)
  -- The numbers that may have been drawn beyond those known here, by steps that are lost (P5), and beyond the time since. Small: what one loss adds, another adds again, and an instance
  -- that was cut off meanwhile must not know lower numbers than there are.
  local STEP = 100000
  -- How many other epochs are kept. A message of an older one costs a recovery that nothing needs.
  local EPOCHS = 8

  local function is_known(epoch)
    for _, known in ipairs(state.epochs) do
      if known == epoch then return true end
    end
    return epoch == ''
  end

  -- Other epochs that messages may still carry: this state's former ones, and those of states that its last recovery replaced.
  function recovery.note_epoch(epoch)
    if is_known(epoch) then return end
    state.epochs[#state.epochs + 1] = epoch
    if #state.epochs > EPOCHS then table.remove(state.epochs, 1) end
  end

  -- When an epoch began, on the group clock of its state; 0 where that is unknown.
  local function began(epoch) return tonumber(epoch:match('^(%d+)%-')) or 0 end

  -- P1 (evidence of loss): an epoch that this state never had is from another state, in which others may have been granted something since. That is a loss
  -- like a missing batch, but for epochs that the recovery under way replaces: those began before it.
  function recovery.was_lost_since(epoch)
    local lost = not is_known(epoch) and (not state.recovery or began(epoch) > began(state.epoch))
    recovery.note_epoch(epoch)
    return lost
  end

  -- A new epoch. Queue, sessions, open calls and inbox are void; windows and health that are there stay.
  function recovery.begin(replication)
    -- A recovery that begins anew still waits for those whom it was waiting for.
    local expected = state.recovery and state.recovery.expected or {}
    local recovering = { since = state.clock, began = state.lease, earliest = NEVER, latest = NEVER, expected = expected, confirmed = {}, remembered = false }
    state.recovery = recovering
    recovery.note_epoch(state.epoch)
    state.epoch = format('%.0f-%s', state.clock, ARGV[2])
    if replication ~= '' then state.replication = replication end
    state.last = max(state.last + step.passed, state.clock) + STEP
    if rules then
      -- What was not delivered never will be. A write that was cut short may have left entries, totals and what was to be delivered apart: so this goes by the
      -- entries.
      windows.recount_all()
    end
    for _, owner in pairs(sessions:all()) do
      if owner then recovering.expected[owner.instance] = true end
    end
    for _, hash in ipairs({ sessions, answers, deployments, inbox }) do hash:clear() end
    store.write('UNLINK', QUEUE)
    calls.clear()
    fair.clear()
    windows.close_all()
    for name, known in pairs(instances:all()) do
      instances:put(name, known and known.gone >= 0 and { hello = -1, session = '', gone = known.gone } or false)
    end
    for deployment, of in pairs(health:all()) do
      if of then
        of.probe = 0
        health:put(deployment, of)
      end
    end
    state.size, state.ghosts, state.sweep, state.better = 0, 0, 0, { 0, 0 }
    state.reap_at, state.collect_at, state.refresh_at = NEVER, NEVER, 0
    state.told, state.owed, state.leftovers = { 0, '', -1 }, nil, {}
    step.recovered = true
    step.wakes['*'] = true
  end

  -- When to look again, on the lease clock: while nobody can step nobody can say hello. The newborn do not know who else there is: if nobody else comes, that
  -- others are slow to come back is waited for.
  function recovery.next()
    if not state.recovery.remembered then return state.recovery.latest end
    for name in pairs(state.recovery.expected) do
      if not state.recovery.confirmed[name] then return state.recovery.latest end
    end
    return state.recovery.earliest
  end

  -- Somebody who may have been granted unseen has told of it: when all have, what was charged for them goes.
  local function settle_debt()
    local owed = state.owed
    if not message.complete or not owed.by[message.instance] then return end
    owed.by[message.instance] = nil
    if next(owed.by) then return end
    for _, key in ipairs(owed.phantoms) do windows.remove(key) end
    state.owed = nil
  end

  -- What counted in its longest window: how long that was under the rules that were in force then. A view is taken while all instances have one
  -- configuration: so those are its sender's.
  local function with_spans(used, offered)
    for _, one in ipairs(used) do
      one[3] = 0
      for _, deployment in ipairs(offered.deployments) do
        local longest = deployment.id == one[1] and deployment.windows[#deployment.windows]
        if longest and one[3] == 0 then one[3] = longest.span end
      end
    end
    return used
  end

  -- Takes what a message says about others while the group recovers, and what it settles afterwards.
  function recovery.hear()
    local recovering, hello = state.recovery, message.hello[1]
    if not recovering then return settle_debt() end
    recovering.earliest = recovering.began + 2 * group.heartbeat()
    recovering.latest = recovering.began + rules.lease
    if hello then
      for _, name in ipairs(hello.peers) do recovering.expected[name] = true end
      recovering.remembered = recovering.remembered or message.seen > 0
      for _, view in ipairs(hello.view) do
        local at = max(state.clock - bounded(view.age, DURATION), 0)
        if not recovering.view or at > recovering.view.at then
          recovering.view = { at = at, number = number(view.number), used = with_spans(view.used, hello.rules) }
        end
      end
      for _, gone in ipairs(hello.gone) do
        local name, age = gone[1], bounded(gone[2], DURATION)
        local known = group.instance(name)
        if age < rules.memory and known.hello < 0 then group.set_gone(name, max(known.gone, state.clock - age, 0)) end
      end
    end
    if message.complete then recovering.confirmed[message.instance] = true end
  end

  local function charge(deployment, requests, input, output, at)
    if requests <= 0 and input <= 0 and output <= 0 then return end
    local key = windows.phantom(group.draw())
    -- More than any limit, so more would hold nothing up.
    local function cut(amount) return max(min(amount, AMOUNT), 0) end
    windows.add(key, deployment, cut(requests), cut(input), cut(output), at)
    return key
  end

  local function charge_limit(deployment, at)
    local most = { 0, 0, 0, 0 }
    for _, window in ipairs(deployment.windows) do
      for kind, limit in ipairs(window.limits) do most[kind] = max(most[kind], limit) end
    end
    local requests, both, input, output = unpack(most)
    -- Enough of each kind, and of both together: what that needs beyond the limits of the kinds counts as input.
    return charge(deployment.id, requests, max(input, both - output), output, at)
  end

  -- P13: somebody is missing who may have been granted anything up to the loss, after the newest view too: everything, then.
  local function charge_limits(at, missing)
    state.owed = { by = missing, phantoms = {} }
    for _, deployment in ipairs(rules.deployments) do state.owed.phantoms[#state.owed.phantoms + 1] = charge_limit(deployment, at) end
  end

  local function by_deployment(used)
    local by_name = {}
    for _, one in ipairs(used) do by_name[one[1]] = by_name[one[1]] or one end
    return by_name
  end

  -- P13: what the newest view had in use and no snapshot reports was granted to missing instances. A deployment that the view does not know, as no instance had it then,
  -- may have been used by instances that were missing already: its limits are charged.
  local function charge_phantoms(view, known)
    local used_by = by_deployment(view.used)
    for _, deployment in ipairs(rules.deployments) do
      local used = used_by[deployment.id]
      if not used then
        charge_limit(deployment, view.at)
      elseif #deployment.windows > 0 and used[3] > 0 then
        local sum = known.by[deployment.id] or { 0, 0, 0 }
        local function unknown(kind) return bounded(used[2][kind], TOTAL) - sum[kind] end
        charge(deployment.id, unknown(1), unknown(2), unknown(3), view.at)
      end
    end
  end

  -- Whether all that is reported of what the newest view shows is summed up; a part more, if not.
  local function sums_up(recovering, view)
    local known = recovering.known
    if not known or known.of ~= view.at then
      known = { of = view.at, from = 0, by = {} }
      recovering.known = known
    end
    if known.from then windows.sum_known(known, view.number, view.at, by_deployment(view.used)) end
    return not known.from
  end

  -- Ends the recovery when its time has come.
  function recovery.settle()
    local recovering = state.recovery
    if state.lease < recovery.next() or state.recount then return end
    local missing, view = {}, recovering.view
    for name in pairs(recovering.expected) do missing[name] = true end
    for name, known in pairs(instances:all()) do
      if known and known.gone >= 0 and known.gone + rules.memory > state.clock then missing[name] = true end
    end
    for name in pairs(recovering.confirmed) do missing[name] = nil end
    -- Whoever was known to be gone when the newest view was taken was granted nothing after it.
    local vouches = view ~= nil
    for name in pairs(missing) do
      local gone = group.instance(name).gone
      vouches = vouches and gone >= 0 and gone <= view.at
    end
    if vouches and next(missing) and not sums_up(recovering, view) then
      step.more = true
      return
    end
    state.recovery, state.floor, state.unsettled = nil, state.horizon, true
    if not next(missing) then return end
    if vouches then charge_phantoms(view, recovering.known) else charge_limits(recovering.since + group.dispatch_within(), missing) end
    -- Told to all, so that they expect them no more.
    state.peers_version = state.peers_version + 1
    for name in pairs(missing) do
      if group.instance(name).gone < 0 then group.set_gone(name, state.clock) end
    end
  end
end)

-- Ops: what happened on the sender's side. Each is { its letter, ... } as in src/message.rs ------------------------------

op = part(function(op)
  local FAIL_WINDOW = 60000000

  local function health_of(deployment) return health:get(deployment) or { cools_until = 0, status = 0, fails = 0, successes = 0, since = 0, probe = 0, probed = 0, paced = false } end

  local function cool(of, time, status)
    if time > of.cools_until then of.cools_until, of.status = time, status end
  end

  -- What a ticket needs, and what it may use under these limits: `left`, the millionths of each that it may fill; `paced`, it goes no faster than the limits' rates.
  function op.demand(limits, place)
    local priority = place.priority
    return {
      input = place.input, output = place.output, left = priority > limits.reserve_priority and limits.left or WHOLE,
      paced = priority > limits.pace_worse_than,
    }
  end

  local function fits_idle(limits, place)
    local demand = op.demand(limits, place)
    for _, deployment in ipairs(limits.deployments) do
      if windows.ever_fits(deployment, demand) and session.knows(place.session, deployment.id) then return true end
    end
    return false
  end

  -- The rules that a ticket goes by: those in force, or while configurations differ the newest limits, for a ticket that the stricter ones would never let go (A5).
  function op.limits_for(place) return rules.newest and not fits_idle(rules, place) and rules.newest or rules end

  -- Whether any deployment that a place's instance knows could ever take it, under the limits it goes by.
  function op.ever_fits(place) return fits_idle(op.limits_for(place), place) end

  -- Tells a ticket that has left the queue why.
  function op.turn_away(place, code)
    if place.session == step.id then
      step.refusals[#step.refusals + 1] = { place.arrival, code }
    else
      session.give_item(place.session, { refusal = { place.arrival, code } })
    end
  end

  local function place_of(priority, arrival, input, output, tenant, cost, tried)
    return { priority = priority, arrival = arrival, session = step.id, input = input, output = output, tenant = tenant, cost = cost, tried = tried }
  end

  function op.j(_, priority, arrival, input, output, start, tenant, cost, tried)
    local entered = group.draw()
    if step.base == 0 then step.base = entered end
    if arrival == 0 then arrival = entered end
    local place = place_of(priority, arrival, input, output, tenant, cost, tried)
    if not op.ever_fits(place) then return op.turn_away(place, NEVER_FITS) end
    if rules.max_queue_depth > 0 and queue.is_full(rules.max_queue_depth) then
      local worse = queue.overflow(place)
      if worse == queue.REFUSE then return op.turn_away(place, QUEUE_FULL) end
      if worse then
        queue.remove(worse)
        op.turn_away(worse, QUEUE_FULL)
      end
    end
    queue.enter(place, start, entered)
  end

  function op.l(_, priority, arrival, input, output, _, tenant, cost, tried)
    queue.leave(place_of(priority, arrival, input, output, tenant, cost, tried))
  end

  function op.s(_, granted, age) windows.date(windows.grant(granted), state.clock - age) end

  -- `input`, `output`: what the reservation shrinks to; and what is above it.
  function op.d(_, granted, deployment, input, output, above_input, above_output, ok)
    if ok then op.count_success(deployment) end
    windows.date(windows.grant(granted), state.clock)
    session.release(step.id, granted, deployment)
    windows.shrink(windows.grant(granted), input, output)
    local of = (above_input > 0 or above_output > 0) and windows.counts(deployment)
    if not of then return end
    if group.paces() then pace.advance(of, 0, above_input, above_output) end
    windows.insert(windows.excess(granted), deployment, 0, above_input, above_output, state.clock)
  end

  function op.u(_, granted)
    local deployment = calls.deployment(step.id, granted)
    if deployment then session.release(step.id, granted, deployment) end
    windows.refund(windows.grant(granted))
  end

  -- Weighs against failures, from the first one on.
  function op.count_success(deployment)
    local of = health:get(deployment)
    if not of then return end
    of.successes = of.successes + 1
    health:put(deployment, (of.cools_until > 0 or state.clock < of.since + FAIL_WINDOW) and of)
  end

  local function is_last_healthy(deployment)
    for _, other in ipairs(rules.deployments) do
      local of = health:get(other.id)
      if other.id ~= deployment and (not of or of.cools_until == 0) then return false end
    end
    return true
  end

  local function cool_down(of, time, status)
    of.fails, of.successes, of.paced = 0, 0, false
    cool(of, time, status)
  end

  -- The next probe may go out so long after the last one.
  local function set_pace(of, status)
    local PROBE_PACE = 1000000
    local following = of.paced and of.probed + PROBE_PACE or state.clock
    of.paced = true
    cool(of, max(following, state.clock), status)
  end

  -- A9: what failures cost a deployment.
  function op.r(_, granted, deployment, probe, again, ok, status, left)
    if ok then
      if probe and health:get(deployment) then health:put(deployment, false) end
      return
    end
    local last, of, answered = is_last_healthy(deployment), health_of(deployment), status ~= 0
    health:put(deployment, of)
    -- A slow probe may come after another one has succeeded: it is a call like any other then.
    local probing = probe and of.cools_until > 0
    if of.probe == granted then of.probe = 0 end
    if left >= 0 then return cool_down(of, state.clock + left, status) end
    if answered and again then
      -- A request that fails everywhere counts once, and proves nothing as a probe.
      if of.paced then set_pace(of, status) end
      return
    end
    if state.clock >= of.since + FAIL_WINDOW then of.fails, of.successes, of.since = 0, 0, state.clock end
    of.fails = of.fails + 1
    local many, most = of.fails > rules.allowed_fails, not answered or of.fails >= of.successes
    if not probing and not (many and most) then return end
    if answered and last then
      set_pace(of, status)
    else
      cool_down(of, state.clock + (by_id[deployment] and by_id[deployment].cooldown or rules.cooldown), status)
    end
  end

  function op.h(_, granted, deployment, probe)
    -- A number that a snapshot names was drawn (P5): it never comes again.
    state.last = max(state.last, seen(granted))
    -- What the instance's former session left may not be settled yet.
    if step.own.former ~= '' then calls.remove(step.own.former, granted, deployment) end
    calls.add(step.id, granted, deployment)
    local of = health:get(deployment)
    if of and probe and of.probe == 0 then
      of.probe, of.probed = granted, state.clock
      health:put(deployment, of)
    end
  end

  function op.m(_, granted, excess, deployment, requests, input, output, age)
    state.last = max(state.last, seen(granted))
    if not windows.counts(deployment) then return end
    local key = excess and windows.excess(granted) or windows.grant(granted)
    windows.insert(key, deployment, requests, input, output, max(state.clock - age, windows.reported(key)))
  end

  function op.c(_, deployment, left, status)
    local of = health_of(deployment)
    -- Who learnt of a cooldown from an answer does not know its status.
    if of.cools_until > state.clock then
      if status == 0 then status = of.status end
      if of.status == 0 then of.status = status end
    end
    cool(of, state.clock + left, status)
    health:put(deployment, of)
  end

  function op.b() end

  -- The fields of ops that have bounds, those that may be negative besides, and those that are sequence numbers.
  local TENANT, COST, TRIED = 2 ^ 52 - 1, 1000000000, 2 ^ 52 - 1
  local TICKET = { [4] = AMOUNT, [5] = AMOUNT, [7] = TENANT, [8] = COST }
  local BOUNDS = {
    j = TICKET, l = TICKET, s = { [3] = DURATION }, d = { [4] = AMOUNT, [5] = AMOUNT, [6] = AMOUNT, [7] = AMOUNT }, r = {},
    m = { [5] = AMOUNT, [6] = AMOUNT, [7] = AMOUNT, [8] = DURATION }, c = { [3] = DURATION }, u = {}, h = {}, b = {},
  }
  local SIGNED = { r = { 8, DURATION } }
  local GRANTED = { 2 }
  local NUMBERS = { j = { 3, 6 }, l = { 3 }, s = GRANTED, d = GRANTED, u = GRANTED, r = GRANTED, h = GRANTED, m = GRANTED, c = {}, b = {} }

  -- Cuts all that ops hold to its bounds.
  function op.bound(ops)
    for _, one in ipairs(ops) do
      local signed = SIGNED[one[1]]
      for i, most in pairs(BOUNDS[one[1]]) do one[i] = bounded(one[i], most) end
      if signed then one[signed[1]] = min(one[signed[1]], signed[2]) end
      for _, i in ipairs(NUMBERS[one[1]]) do one[i] = number(one[i]) end
      if BOUNDS[one[1]] == TICKET and (one[9] < 0 or one[9] > TRIED) then one[9] = 0 end
    end
  end

  -- Reads at once what the ops are about.
  function op.prepare(ops)
    local open, keys, places = {}, {}, {}
    for _, one in ipairs(ops) do
      local tag, number = one[1], one[2]
      if tag == 'j' or tag == 'l' then places[#places + 1] = { priority = one[2], tenant = one[7] } end
      if tag == 'd' or tag == 'h' then open[#open + 1] = { step.id, number, one[3] } end
      if tag == 'h' and step.own.former ~= '' then open[#open + 1] = { step.own.former, number, one[3] } end
      if tag == 's' or tag == 'u' or tag == 'd' or (tag == 'm' and not one[3]) then keys[#keys + 1] = windows.grant(number) end
      if (tag == 'd' and (one[6] > 0 or one[7] > 0)) or (tag == 'm' and one[3]) then keys[#keys + 1] = windows.excess(number) end
    end
    calls.fetch(open)
    windows.fetch(keys)
    if rules.fair then fair.fetch(places) end
  end

  function op.apply_all(ops)
    for _, one in ipairs(ops) do op[one[1]](unpack(one)) end
    queue.write_later()
  end
end)

-- Grants: the head, a deployment with room, and when there will be room ------------------------------------------------

grant = part(function(grant)
  local HEALTHY, COOLING, DUE, PROBING = 1, 2, 3, 4
  local GRANTS = 64
  local PROBE_PACE = 1000000

  -- A deployment's health as seen by the head; until when that keeps the head away, and because of which status. A probe that has been out for
  -- longer than the deployment's cooldown, a second at least, may be followed by another (A9).
  local function fitness(deployment)
    local of = health:get(deployment.id)
    if not of or of.cools_until == 0 then return HEALTHY end
    if of.cools_until > state.clock then return COOLING, of.cools_until, of.status end
    local next_probe = of.probed + (of.paced and PROBE_PACE or max(deployment.cooldown, PROBE_PACE))
    if of.probe ~= 0 and next_probe > state.clock then return PROBING, next_probe end
    return DUE
  end

  -- What the head needs and may use. What is there for the better ones does not hold it up while they wait behind it, as with aging they can.
  local function demand_of(limits, place)
    local demand = op.demand(limits, place)
    if queue.spares_reserve() then demand.left = WHOLE end
    demand.paced = demand.paced and not queue.spares_pace()
    return demand
  end

  local function slot_free(deployment, demand)
    return deployment.concurrency == NONE or windows.open(deployment.id) < windows.part_of(deployment.concurrency, demand.left)
  end

  -- When pacing lets the head go there; 0 where it does not hold it.
  local function pace_due(deployment, demand) return demand.paced and pace.due(deployment, demand.input, demand.output) or 0 end

  -- The largest used share of a deployment's limits in millionths, then its open calls. More than the highest limit, 9e9, counts as that: so the products are
  -- exact.
  local function share(deployment)
    local function of(used, limit) return limit > 0 and floor(min(used, 9000000000) * 1000000 / limit) or 0 end
    local open = windows.open(deployment.id)
    local largest = of(open, deployment.concurrency)
    for i, window in ipairs(deployment.windows) do
      local requests, input, output = windows.used(deployment.id, i)
      local limits = window.limits
      largest = max(largest, of(requests, limits[1]), of(input + output, limits[2]), of(input, limits[3]), of(output, limits[4]))
    end
    return largest, open
  end

  local function least_used(candidates)
    local best, best_share, best_open
    for _, deployment in ipairs(candidates) do
      local used, open = share(deployment)
      if not best or used < best_share or (used == best_share and open < best_open) then
        best, best_share, best_open = deployment, used, open
      end
    end
    return best
  end

  -- A number below `most`, each as likely as any other: Park and Miller's generator, whose products are exact in a double.
  local function draw_below(most)
    local MODULUS, MULTIPLIER = 2147483647, 48271
    local draws = MODULUS - 1
    most = min(most, draws)
    local even = draws - draws % most
    while true do
      step.random = step.random * MULTIPLIER % MODULUS
      local draw = step.random - 1
      -- What is beyond the last whole multiple would make small numbers more likely.
      if draw < even then return draw % most end
    end
  end

  -- Without those that the place's request has tried in vain: bit n stands for the n-th deployment of its instance. All of them, if it has tried all.
  local function prefer_untried(place, candidates)
    if place.tried == 0 then return candidates end
    local tried, untried = {}, {}
    for n, id in ipairs(deployments:get(place.session) or {}) do
      if n <= 52 and floor(place.tried / 2 ^ (n - 1)) % 2 == 1 then tried[id] = true end
    end
    for _, deployment in ipairs(candidates) do
      if not tried[deployment.id] then untried[#untried + 1] = deployment end
    end
    return #untried > 0 and untried or candidates
  end

  local function shuffled(candidates)
    local total = 0
    for _, deployment in ipairs(candidates) do total = total + deployment.weight end
    if total == 0 then return candidates[draw_below(#candidates) + 1] end
    local left = draw_below(total)
    for _, deployment in ipairs(candidates) do
      if left < deployment.weight then return deployment end
      left = left - deployment.weight
    end
    return candidates[1]
  end

  -- What the head may do now: go to a deployment, perhaps as its probe; or be refused: nil and the code; or wait: nil.
  local function choose(place)
    local limits = op.limits_for(place)
    local healthy, due, hopeless, hope, demand = {}, nil, nil, false, demand_of(limits, place)
    for _, deployment in ipairs(limits.deployments) do
      if session.knows(place.session, deployment.id) then
        local fit, _, status = fitness(deployment)
        if fit == COOLING and (status == 401 or status == 402 or status == 404) then
          hopeless = hopeless or status
        else
          hope = true
        end
        local usable = (fit == HEALTHY or fit == DUE) and slot_free(deployment, demand) and windows.free(deployment, demand)
        if usable and pace_due(deployment, demand) <= state.clock then
          if fit == HEALTHY then healthy[#healthy + 1] = deployment else due = due or deployment end
        end
      end
    end
    -- A retry goes elsewhere if it can; if not, it takes the room there is (A4).
    healthy = prefer_untried(place, healthy)
    if #healthy == 1 then return healthy[1], false end
    if #healthy > 1 then return rules.strategy == 1 and least_used(healthy) or shuffled(healthy), false end
    if due then return due, true end
    if hopeless and not hope then return nil, hopeless end
    if not op.ever_fits(place) then return nil, NEVER_FITS end
  end

  local function give(place, deployment, probe)
    local granted, name = group.draw(), deployment.id
    local counted, mine = #deployment.windows > 0, place.session == step.id
    calls.add_new(place.session, granted, name)
    local of = health:get(name)
    if probe and of then
      of.probe, of.probed = granted, state.clock
      health:put(name, of)
    end
    -- The number is new, so there is no entry to be replaced.
    if counted then
      windows.add_open_charge(windows.grant(granted), name, place.input, place.output)
      if group.paces() then pace.advance(deployment, 1, place.input, place.output) end
    end
    local permit = { place.arrival, granted, name, counted, probe, place.score, rules.fair and fair.told(place.start) or 0 }
    if mine then
      step.grants[#step.grants + 1] = permit
    else
      session.give_item(place.session, { since = state.lease, grant = permit })
      state.collect_at = min(state.collect_at, state.lease + session.collect_within())
    end
  end

  -- Grants while the head fits (A1, A2, A4, A5).
  function grant.all()
    local done = 0
    while true do
      local place = queue.head()
      if not place then return end
      local deployment, verdict = choose(place)
      if not deployment and not verdict then return end
      if done == GRANTS then
        step.more = true
        return
      end
      done = done + 1
      queue.take_first(deployment ~= nil)
      queue.left(place)
      if deployment then give(place, by_id[deployment.id], verdict) else op.turn_away(place, verdict) end
    end
  end

  -- The earliest time at which the head can go if nothing else happens; nil: only an op can free it.
  function grant.next_free(place)
    local limits = op.limits_for(place)
    local best, blocked, demand = nil, {}, demand_of(limits, place)
    for _, deployment in ipairs(limits.deployments) do
      local _, not_before = fitness(deployment)
      local usable = slot_free(deployment, demand) and windows.ever_fits(deployment, demand)
      if usable and session.knows(place.session, deployment.id) then
        local from = max(not_before or state.clock, pace_due(deployment, demand))
        if windows.free(deployment, demand) then
          best = min(best or from, from)
        else
          blocked[deployment.id] = { deployment = deployment, from = from }
        end
      end
    end
    return windows.next_free(blocked, demand, best)
  end

  -- Why the head waits: bits, as in src/message.rs, for all deployments that it could go to.
  function grant.reasons(place)
    local limits, held = op.limits_for(place), {}
    local demand = demand_of(limits, place)
    for _, deployment in ipairs(limits.deployments) do
      if session.knows(place.session, deployment.id) and windows.ever_fits(deployment, demand) then
        local fit, total = fitness(deployment), windows.total_of(deployment.id)
        if fit == COOLING then held[8] = true end
        if fit == PROBING then held[64] = true end
        if not slot_free(deployment, demand) then held[4] = true end
        for i, window in ipairs(deployment.windows) do
          local requests, tokens, input, output = windows.fits(window, i, total, demand)
          if not requests then held[1] = true end
          if not tokens then held[2] = true end
          if not input then held[128] = true end
          if not output then held[256] = true end
        end
        if pace_due(deployment, demand) > state.clock then held[16] = true end
        local whole = { input = demand.input, output = demand.output, left = WHOLE }
        local kept_room = slot_free(deployment, demand) and windows.free(deployment, demand)
        if not kept_room and slot_free(deployment, whole) and windows.free(deployment, whole) then held[32] = true end
      end
    end
    local reasons = 0
    for bit in pairs(held) do reasons = reasons + bit end
    return reasons
  end

  -- What counts of a deployment: requests, input and output tokens in its longest window; open calls, cooldown left, for how long pacing holds up
  -- whom it holds.
  function grant.used(deployment)
    local requests, input, output, of = 0, 0, 0, health:get(deployment.id)
    if #deployment.windows > 0 then requests, input, output = windows.used(deployment.id, #deployment.windows) end
    local cooling = of and max(of.cools_until - state.clock, 0) or 0
    local held = group.paces() and max(pace.due(deployment, 0, 0) - state.clock, 0) or 0
    return { { requests, input, output }, windows.open(deployment.id), cooling, held }
  end
end)

-- The step --------------------------------------------------------------------------------------------------------------

-- The head's owner is woken when the head is another one, or its time is earlier than it was last told (P15). An owner that knows a time that is too early steps too
-- early, and learns the right one then.
local function tell_head(place, at, mine)
  local told = state.told
  local function or_never(time) return time < 0 and NEVER or time end
  local news = told[1] ~= place.arrival or told[2] ~= place.session or or_never(at or -1) < or_never(told[3])
  if mine or news then state.told = { place.arrival, place.session, at or -1 } end
  local owner = sessions:get(place.session)
  if owner and news and not mine then group.wake(owner) end
end

-- Who else is there, and who died lately: told when it has changed.
local function peers_and_gone()
  if step.own.peers_told == state.peers_version then return {}, {} end
  step.own.peers_told = state.peers_version
  local names, gone = {}, {}
  for _, owner in pairs(sessions:all()) do
    if owner then names[owner.instance] = true end
  end
  for name in pairs(state.recovery and state.recovery.expected or {}) do names[name] = true end
  for name, known in pairs(instances:all()) do
    if known and known.gone >= 0 then gone[name] = true end
  end
  gone = store.sorted(gone)
  for i, name in ipairs(gone) do gone[i] = { name, max(state.clock - group.instance(name).gone, 0) } end
  return store.sorted(names), gone
end

-- For each ticket that comes new, how many were surely before it when the step began; 0 for one that comes again.
local function count_ahead()
  local leaving, at_least, ahead = 0, {}, {}
  local in_turns = rules.fair and rules.aging == 0
  for _, of in ipairs(message.ops) do
    if of[1] == 'l' then leaving = leaving + 1 end
  end
  for _, of in ipairs(message.ops) do
    if of[1] == 'j' then
      local priority, before = of[2], 0
      if of[3] == 0 then
        -- Those that come now get higher numbers. With fair shares they may come between, but for their own tenant's.
        local score = in_turns and priority - 1 or queue.score(priority, state.last)
        local function count() return call('ZCOUNT', QUEUE, '-inf', score) + (in_turns and fair.behind_better_than(priority) or 0) end
        at_least[priority] = at_least[priority] or count()
        local own = in_turns and fair.waiting({ priority = priority, tenant = of[7] }) or 0
        before = max(at_least[priority] + own - state.ghosts - leaving, 0)
      end
      ahead[#ahead + 1] = before
    end
  end
  return ahead
end

local function answer(ahead)
  local place = queue.first()
  local mine, at, reasons = place ~= nil and place.session == step.id, nil, 0
  if state.recovery then
    at = state.clock + max(recovery.next() - state.lease, 0)
  elseif place then
    at, reasons = grant.next_free(place), grant.reasons(place)
    tell_head(place, at, mine)
  end
  local used, one = {}, #rules.configurations == 1
  for i, id in ipairs(one and group.deployments() or deployments:get(step.id) or {}) do used[i] = by_id[id] and grant.used(by_id[id]) or { { 0, 0, 0 }, 0, 0, 0 } end
  local peers, gone = peers_and_gone()
  return pack({
    tonumber(step.id), step.base, state.last, state.horizon, step.grants, step.refusals, at and max(at - state.clock, 0) or -1, mine, state.recovery ~= nil, step.more,
    group.depth(), used, configurations.version(step.own.configuration), peers, gone, ahead, reasons, rules.memory, configurations.heartbeat(),
    #rules.configurations,
  })
end

-- A reply is an array of four; the answer, if there is one, goes in as it is stored.
local function reply(verdict, packed)
  return '\148' .. pack(verdict) .. pack(state.epoch) .. pack(step.recovered) .. (packed and '\145' .. packed or '\144')
end

local function execute(replication)
  state.last = max(state.last, message.seen)
  state.horizon = max(state.horizon, message.horizon)
  local verdict, packed = session.admit(replication)
  if verdict then return reply(verdict, packed) end
  sessions:put(step.id, step.own)
  if state.unsettled and configurations.settle() then
    -- Places are ordered, and counted, by rules that are gone: all join anew (P18).
    recovery.begin(replication)
    return reply(RESYNC)
  end
  health:all()
  windows.fetch_totals()
  if group.paces() then pace.fetch() end
  if state.recovery or state.owed then recovery.hear() end
  if state.size == 0 then state.era = state.last end
  op.bound(message.ops)
  op.prepare(message.ops)
  local ahead = count_ahead()
  op.apply_all(message.ops)
  if state.lease > state.reap_at then ending.reap() end
  if state.lease > state.collect_at then ending.take_back() end
  if state.leftovers[1] then ending.settle_leftovers() end
  if state.recount then windows.recount() end
  if state.recovery then recovery.settle() end
  session.collect()
  if not state.recovery then
    windows.expire()
    if state.idle > 0 then fair.forget() end
    grant.all()
    queue.sweep()
  end
  packed = answer(ahead)
  answers:put(step.id, packed)
  local last = message.ops[#message.ops]
  if last and last[1] == 'b' then ending.leave(last[2]) end
  return reply(DONE, packed)
end

-- Read once: it advances while a script runs (before Redis 7.2).
local function raw_now()
  if ARGV[5] then return tonumber(ARGV[5]) end
  local time = call('TIME')
  return time[1] * 1000000 + time[2]
end

-- The master's history; '' where INFO is not allowed.
local function replication_id()
  if ARGV[6] then return ARGV[6] end
  local info = redis.pcall('INFO', 'replication')
  return type(info) == 'string' and info:match('master_replid:(%x+)') or ''
end

local replication = replication_id()
group.load(raw_now(), replication)
local result = { execute(replication) }
group.save()
for _, name in ipairs(store.sorted(step.wakes)) do
  result[#result + 1] = name
  -- A user without the right to publish must not stop half-way.
  if ARGV[3] ~= '' then redis.pcall('PUBLISH', ARGV[3] .. name, ARGV[4]) end
end
return result
