-- The group's scalars, its clocks and its keys. `draw`, `depth` and `advance` are those of src/transition/mod.rs. `reap_after` to `check_again` and `paces` are in
-- src/rules.rs. The others exist only here: they load, save and keep alive what is memory there.

group = part(function(group)
  -- TTL of the keys in s, and how often it is renewed in us: a week and a day.
  local TTL, REFRESH = 604800, 86400000000
  local rules_changed = false

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

  function group.load(raw, replication)
    local stored = call('HMGET', META, 'state', 'rules', 'dirty')
    if not stored[1] then
      -- Rules without a state are void.
      rules_changed, by_id = true, {}
      state = {
        better = { 0, 0 }, epoch = '', replication = '', raw = raw, clock = raw, lease = raw, last = recovery.first_number(raw), peers_version = 0,
        highest_finish = 0, tag_floor = 0, busy_since = 0, epochs = {}, generation = 0, former = {},
      }
      -- The state of the sender's epoch is lost.
      recovery.note_epoch(message.epoch)
      recovery.begin(replication)
      return
    end
    state, by_id = unpacked(stored[1]), {}
    if stored[2] ~= '' then group.use_rules(unpacked(stored[2])) end
    advance(raw)
    if stored[3] ~= '' or (replication ~= '' and state.replication ~= replication) then recovery.begin(replication) end
  end

  -- Renews the TTL of all keys together. A key that becomes empty would lose it, so each has a placeholder member.
  local function refresh()
    for i, key in ipairs(KEYS) do
      if key == BEHIND or key == CALLS then
        -- Ranges by member need equal scores.
        store.write('ZADD', key, 0, ':')
      elseif i > 1 and i < 2 + SORTED_SETS then
        store.write('ZADD', key, '+inf', '')
      elseif i > 1 then
        store.write('HSET', key, '', '')
      end
    end
    for _, key in ipairs(KEYS) do store.write('EXPIRE', key, TTL) end
    state.refresh_at = state.clock + REFRESH
  end

  function group.save()
    queue.save()
    windows.save()
    -- A part that was not used has nothing to save.
    if not getmetatable(calls) then calls.save() end
    if group.paces() then pace.save() end
    if not getmetatable(fair) then fair.save() end
    for _, hash in ipairs({ sessions, answers, deployments, instances, inbox, health }) do hash:save() end
    if state.clock >= state.refresh_at then refresh() end
    if rules_changed then store.write('HSET', META, 'rules', configurations.packed()) end
    call('HSET', META, 'state', pack(state), 'dirty', '')
  end
end)
