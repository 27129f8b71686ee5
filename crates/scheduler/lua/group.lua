-- The group's scalars, its clocks and its keys. `draw`, `depth` and `advance` are those of src/transition/mod.rs. `reap_after` to `check_again` and `paces` are in
-- src/rules.rs. The others exist only here: they load, save and keep alive what is memory there.

group = part(function(group)
  -- TTL of the keys in s, and how often it is renewed in us: a week and a day.
  local TTL, REFRESH = 604800, 86400000000
  local rules_changed
  -- How many fields and values one command takes, and after how many steps all groups are read anew.
  local MANY = 4000
  -- By name of META: the groups as this server has written them last.
  local kept, times_kept = {}, 0

  function group.use_rules(new)
    rules, by_id = new, {}
    for _, deployment in ipairs(rules.deployments) do by_id[deployment.id] = by_id[deployment.id] or deployment end
  end

  function group.install_rules(new)
    rules_changed = true
    group.use_rules(new)
  end

  -- P5 (sequence numbers): drawn from one counter, and never below the group clock.
  function group.draw()
    state.last = max(state.last + 1, state.clock)
    return state.last
  end

  -- The number of a grant. Grants of one step have numbers of one block (lua/windows.lua), as far as it has room.
  function group.draw_granted()
    local drawn = group.draw()
    if not step.drawn then
      step.drawn = true
      drawn = drawn + -drawn % BLOCK
      state.last = drawn
    end
    return drawn
  end

  function group.reap_after(lease) return lease - 2 * floor(lease / 6) end

  -- What is kept of an instance beyond its session: the number of its last opening (-1: none), its last session, and when it departed (-1: it has not).
  function group.instance(name) return instances:get(name) or { open_session = -1, session = '', departed = -1 } end

  function group.set_departed(name, at)
    local known = group.instance(name)
    known.departed = at
    instances:put(name, known)
  end

  function group.heartbeat() return floor(rules.lease / 6) end

  -- P9 (dispatch within the session): how long after the first transmission of its last answered message an instance may dispatch grants of the session.
  function group.dispatch_within() return group.reap_after(rules.lease) - group.heartbeat() end

  -- P8 (dispatch report): an open charge that would have expired if it had been dispatched at its grant is checked again after this long.
  function group.check_again() return floor(group.heartbeat() / 16) end

  -- The ids of the deployments.
  function group.deployments()
    local ids = {}
    for i, deployment in ipairs(rules.deployments) do ids[i] = deployment.id end
    return ids
  end

  -- Whether any ticket can be paced.
  function group.paces() return rules and rules.pace_worse_than < NOT_PACED end

  function group.nothing_waits() return state.size + state.behind == 0 end

  function group.depth() return state.size + state.behind - state.orphans end

  function group.wake(owner) step.wakes[owner.instance] = true end

  -- P6 (group clock), P7 (lease clock): both follow the highest server time, so jitter does not accumulate. The lease clock counts at most a heartbeat per step. A server
  -- clock that is more than a second behind was set back, and its time is the new base.
  local function advance(raw)
    local elapsed = max(raw - state.raw, 0)
    step.elapsed = elapsed
    if elapsed > 0 or raw + CLOCK_SET_BACK < state.raw then state.raw = raw end
    state.clock = state.clock + elapsed
    state.lease = state.lease + min(elapsed, rules and group.heartbeat() or 0)
  end

  -- The master's replication id; '' where INFO is not allowed.
  local function replication_id()
    if arguments[6] then return arguments[6] end
    local info = redis.pcall('INFO', 'replication')
    return type(info) == 'string' and info:match('master_replid:(%x+)') or ''
  end

  local function as_it_is(value) return value end

  -- A session's record is written in each step, so it is a row.
  local function packed_session(of)
    return pack(of.instance, of.batch, of.seen, of.former, of.unresponsive, of.peers_reported, of.overrides_reported, of.configuration, of.waiting)
  end

  local function session_of(instance, batch, seen_at, former, unresponsive, peers_reported, overrides_reported, configuration, waiting)
    return {
      instance = instance, batch = batch, seen = seen_at, former = former, unresponsive = unresponsive, peers_reported = peers_reported,
      overrides_reported = overrides_reported, configuration = configuration, waiting = waiting,
    }
  end

  local function session_from(row) return session_of(unpacked(row)) end

  -- A group as it is kept between calls, as far as it is a library that makes them.
  local function new_context()
    context = { records = {}, blocks = windows.no_blocks(), calls = { count = 0 } }
    for name, letter in pairs({ deployments = 'D', instances = 'I', inbox = 'B', health = 'H', totals = 'T', due = 'P' }) do
      context[name] = store.records(letter, pack, unpacked)
    end
    context.answers = store.records('A', as_it_is, as_it_is)
    context.sessions = store.records('S', packed_session, session_from)
  end

  local function use_context()
    sessions, answers, deployments, instances = context.sessions, context.answers, context.deployments, context.instances
    inbox, health, totals, due = context.inbox, context.health, context.totals, context.due
    state, rules, by_id = context.state, context.rules, context.by_id
  end

  -- The scalars that change in most steps. No two steps of a group write the same: a random number is among them.
  local function packed_hot()
    local of = state
    return pack(of.raw, of.clock, of.lease, of.last, of.highest_finish, of.busy_since, of.size, of.orphans, of.expires_at, arguments[2])
  end

  local function set_hot(raw, clock, lease, last, highest_finish, busy_since, size, orphans, expires_at)
    local of = state
    of.raw, of.clock, of.lease, of.last, of.highest_finish, of.busy_since, of.size, of.orphans, of.expires_at =
      raw, clock, lease, last, highest_finish, busy_since, size, orphans, expires_at
  end

  -- The others.
  local function packed_cold()
    local of = state
    return pack(
      of.better, of.epoch, of.replication, of.peers_version, of.tag_floor, of.epochs, of.generation, of.former, of.sweep, of.sweep_behind, of.behind, of.idle, of.reap_at,
      of.revoke_at, of.refresh_at, of.head_notice, of.leftovers, of.unsettled or false, of.recovery or false, of.conservative or false, of.recount or false,
      of.overrides or false, of.latencies or false
    )
  end

  local function cold_of(
    better, epoch, replication, peers_version, tag_floor, epochs, generation, former, sweep, sweep_behind, behind, idle, reap_at, revoke_at, refresh_at, head_notice,
    leftovers, unsettled, in_recovery, conservative, recount, overrides, latencies
  )
    return {
      better = better, epoch = epoch, replication = replication, peers_version = peers_version, tag_floor = tag_floor, epochs = epochs, generation = generation,
      former = former, sweep = sweep, sweep_behind = sweep_behind, behind = behind, idle = idle, reap_at = reap_at, revoke_at = revoke_at, refresh_at = refresh_at,
      head_notice = head_notice, leftovers = leftovers, unsettled = unsettled, recovery = in_recovery or nil, conservative = conservative or nil,
      recount = recount or nil, overrides = overrides or nil, latencies = latencies or nil,
    }
  end

  -- Reads the group. Returns its scalars and its rules, packed.
  local function read()
    new_context()
    if KEEPS then
      local fields = store.read_all()
      return fields.cold, fields.rules
    end
    local stored = call('HMGET', META, 'cold', 'rules')
    return stored[1], stored[2]
  end

  -- What was kept is valid if nothing else has been written since, not even in part. Then no other master has been at work either. Until the step has ended nothing is kept: it may fail.
  function group.load(raw)
    local stored = call('HMGET', META, 'hot', 'dirty')
    context, kept[META] = kept[META], nil
    local replication
    if context and context.hot == stored[1] and stored[2] == '' then
      use_context()
      replication = arguments[6] or state.replication
    else
      local cold, packed_rules = read()
      use_context()
      replication = replication_id()
      if not stored[1] or not cold then
        -- Rules without a state are void.
        rules_changed, by_id = true, {}
        state = {
          better = { 0, 0 }, epoch = '', replication = '', raw = raw, clock = raw, lease = raw, last = recovery.first_number(raw), peers_version = 0,
          highest_finish = 0, tag_floor = 0, busy_since = 0, epochs = {}, generation = 0, former = {}, expires_at = 0,
        }
        -- Entries without their totals are void too; snapshots report the charges.
        windows.forget_all()
        -- The state of the sender's epoch is lost.
        recovery.note_epoch(message.epoch)
        recovery.begin(replication)
        return replication
      end
      state, by_id, context.cold = cold_of(unpacked(cold)), {}, cold
      set_hot(unpacked(stored[1]))
      if packed_rules ~= '' then group.use_rules(unpacked(packed_rules)) end
    end
    advance(raw)
    if stored[2] ~= '' then windows.drop_unordered() end
    if stored[2] ~= '' or (replication ~= '' and state.replication ~= replication) then recovery.begin(replication) end
    return replication
  end

  -- P17 (partial writes): whether somebody has deleted a key. Each has a placeholder member, so none is missing otherwise. Messages without ops look, because heartbeats
  -- are such.
  function group.lacks_a_key() return call('EXISTS', unpack(keys)) < #keys end

  -- Renews the TTL of all keys together. A key that becomes empty would lose it, so each has a placeholder member.
  local function refresh()
    for i, key in ipairs(keys) do
      if key == BEHIND or key == CALLS then
        -- Ranges by member need equal scores.
        store.write('ZADD', key, 0, ':')
      elseif i > 1 and i < 2 + SORTED_SETS then
        store.write('ZADD', key, '+inf', '')
      elseif i > 1 then
        store.write('HSET', key, '', '')
      end
    end
    for _, key in ipairs(keys) do store.write('EXPIRE', key, TTL) end
    state.refresh_at = state.clock + REFRESH
  end

  function group.save()
    queue.save()
    windows.save()
    -- A part that was never used has nothing to save.
    if not getmetatable(calls) then calls.save() end
    if not getmetatable(fair) then fair.save() end
    if state.clock >= state.refresh_at then refresh() end
    local set, removed = {}, {}
    for _, of in pairs(context.records) do
      if of.any then of:save(set, removed) end
    end
    if rules_changed then set[#set + 1], set[#set + 2] = 'rules', configurations.packed() end
    if removed[1] then store.write_all('HDEL', META, removed) end
    if #set > MANY then
      store.write_all('HSET', META, set)
      set = {}
    end
    local n, hot, cold = #set, packed_hot(), packed_cold()
    set[n + 1], set[n + 2], set[n + 3], set[n + 4], n = 'dirty', '', 'hot', hot, n + 4
    if cold ~= context.cold then set[n + 1], set[n + 2] = 'cold', cold end
    call('HSET', META, unpack(set))
    if not KEEPS then return end
    context.hot, context.cold, context.state, context.rules, context.by_id = hot, cold, state, rules, by_id
    times_kept = times_kept + 1
    if times_kept == MANY then
      -- Groups come and go, so that some are kept that will not come again.
      kept, times_kept = {}, 0
    end
    kept[META] = context
  end

  return function() rules_changed = false end
end)
