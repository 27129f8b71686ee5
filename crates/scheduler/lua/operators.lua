-- What operators change and see (P23): overrides, and views of the queue. The functions of src/transition/operators.rs, in its order; `change`, `holds` and `apply` are in
-- src/overrides.rs. `state.overrides` is nil before the first change.

operators = part(function(operators)
  local function find(list, is_it)
    for i, one in ipairs(list) do
      if is_it(one) then return i end
    end
  end

  -- Makes one change. A change beyond MAX_OVERRIDES does nothing.
  local function change(FIELDS_override)
    local known = state.overrides or { paused = false, keys = {}, limits = {} }
    state.overrides, known.version = known, group.draw()
    if what == PAUSES and key == 0 then
      known.paused = paused
    elseif what == PAUSES then
      local at = find(known.keys, function(one) return one >= key end)
      local found = at and known.keys[at] == key
      if found and not paused then table.remove(known.keys, at) end
      if not found and paused and #known.keys < MAX_OVERRIDES then table.insert(known.keys, at or #known.keys + 1, key) end
    elseif what == LIMITS then
      local at = find(known.limits, function(one) return one.deployment == deployment and one.kind == kind and one.span == span end)
      if at then table.remove(known.limits, at) end
      limit = max(min(limit, MAX_LIMIT), NONE)
      if limit ~= NONE and #known.limits < MAX_OVERRIDES then
        table.insert(known.limits, { deployment = deployment, kind = kind, span = span, limit = limit })
      end
    end
  end

  -- Whether a key is paused.
  function operators.holds(key)
    return key ~= 0 and find(state.overrides.keys, function(one) return one == key end) ~= nil
  end

  local function set_limit(of, changed)
    if changed.kind == OPEN_CALLS then
      if of.concurrency ~= NONE then of.concurrency = changed.limit end
      return
    end
    for _, window in ipairs(of.windows) do
      local kind = changed.kind + 1
      if window.span == changed.span and (window.limits[kind] or NONE) ~= NONE then
        -- The configuration has the same list.
        window.limits = { unpack(window.limits) }
        window.limits[kind] = changed.limit
        return
      end
    end
  end

  -- The limits in force: a configured limit that is not changed stays, and a changed limit that is not configured has no effect.
  function operators.apply(strict)
    for _, changed in ipairs(state.overrides.limits) do
      for _, merged in pairs({ strict, strict.newest }) do
        local at = find(merged.deployments, function(one) return one.id == changed.deployment end)
        if at then set_limit(merged.deployments[at], changed) end
      end
    end
  end

  local function bound(list)
    while #list > MAX_OVERRIDES do table.remove(list) end
    return list
  end

  -- P23 (operators): takes changes of the overrides, before the rules in force are settled. All sessions are woken to learn them.
  function operators.receive_overrides(ops)
    local changed = false
    for _, one in ipairs(ops) do
      if one[1] == TAG_override then
        change(unpack(one))
        -- The sender learns what came of it, even where that is nothing new.
        step.own.overrides_reported = 0
        changed = true
      elseif one[1] == TAG_overrides then
        local version = seen(one[FIELD_overrides_version])
        if version > (state.overrides and state.overrides.version or 0) then
          local keys, limits = bound(one[FIELD_overrides_keys]), bound(one[FIELD_overrides_limits])
          for i, key in ipairs(keys) do keys[i] = bounded(key, MAX_TENANT) end
          for _, limit in ipairs(limits) do limit.limit = max(min(limit.limit, MAX_LIMIT), 0) end
          state.overrides = { version = version, paused = one[FIELD_overrides_paused], keys = keys, limits = limits }
          changed = true
        end
      end
    end
    if not changed then return end
    state.unsettled = true
    for _, owner in pairs(sessions:all()) do
      if owner then group.wake(owner) end
    end
  end

  -- The overrides, if the sender does not have them yet.
  function operators.unreported_overrides()
    local known = state.overrides
    if step.own.overrides_reported == known.version then return {} end
    step.own.overrides_reported = known.version
    local version, paused, keys, limits = known.version, known.paused, known.keys, known.limits
    return { { FIELDS_reported_overrides } }
  end

  local function viewed_entry(entry)
    local owner = sessions:get(entry.session)
    local arrival, priority, tokens, tenant = entry.arrival, entry.priority, { entry.input, entry.output }, entry.tenant or 0
    local key, instance, orphaned = entry.key, owner and owner.instance or '', queue.is_orphaned(entry)
    return { FIELDS_viewed_entry }
  end

  local function viewed_deployment(of)
    local id, concurrency, windows_of, known = of.id, of.concurrency, {}, health:get(of.id)
    for i, window in ipairs(of.windows) do windows_of[i] = { window.span, window.limits, { windows.used(id, i) } } end
    local used, windows = grant.used(of), windows_of
    local open, cooling, pace, status = used[FIELD_used_open], used[FIELD_used_cooling], used[FIELD_used_pace], known and known.status or 0
    return { FIELDS_viewed_deployment }
  end

  local function viewed_session(id, owner)
    local instance, waiting, open, unresponsive = owner.instance, owner.waiting, calls.count_of(id), owner.unresponsive
    return { FIELDS_viewed_session }
  end

  -- A part of the queue, and the state of the group.
  function operators.view(from, most)
    local clock, ordered, rows, deployments, sessions_of, ids = state.clock, state.size, {}, {}, {}, {}
    for i, entry in ipairs(queue.part(from, most)) do rows[i] = viewed_entry(entry) end
    for i, of in ipairs(rules.deployments) do deployments[i] = viewed_deployment(of) end
    for id, owner in pairs(sessions:all()) do
      if owner then ids[id] = true end
    end
    for i, id in ipairs(store.sorted(ids)) do
      if i <= MAX_SESSIONS then sessions_of[i] = viewed_session(id, sessions:get(id)) end
    end
    local sessions = sessions_of
    return { FIELDS_view }
  end
end)
