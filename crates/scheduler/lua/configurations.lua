-- Configurations differ during every roll-out (P20). The functions of src/transition/configurations.rs, in its order. `fingerprint` to `list` and `packed` exist only
-- here: there values compare and copy by themselves. `ordering` is in src/rules.rs.
--
-- The rules in force are the union of the configurations of all sessions, with the stricter limits. `rules.configurations` has them, the newest first: id, version and rules
-- (nil if there is only one: its rules are those in force). If there are several, `rules.newest` has the same deployments and windows with the limits of the newest
-- configuration that knows them.

configurations = part(function(configurations)
  -- Equal for equal rules. The order of a table's fields is not.
  local function fingerprint(of)
    local parts = {
      of.strategy, of.latency_age, of.latency_buffer, of.max_queue_depth, of.allowed_fails, of.cooldown, of.lease, of.memory, of.pace_worse_than, of.reserve_priority, of.left, of.aging,
      of.fair,
    }
    for _, deployment in ipairs(of.deployments) do
      local part = { deployment.id, deployment.weight, deployment.order, deployment.concurrency, deployment.cooldown }
      for _, window in ipairs(deployment.windows) do part[#part + 1] = { window.span, window.limits } end
      parts[#parts + 1] = part
    end
    return pack(parts)
  end

  -- The list of windows of each deployment. A change of it needs a recount.
  local function counted(of)
    local all = {}
    for _, deployment in ipairs(of.deployments) do
      local spans = {}
      for i, window in ipairs(deployment.windows) do spans[i] = window.span end
      all[deployment.id] = pack(spans)
    end
    return all
  end

  -- The deployments that have the same list of windows in both; and whether all have.
  local function same_windows(former, new)
    local before, after, same, all = counted(former), counted(new), {}, true
    for id, spans in pairs(before) do
      same[id] = after[id] == spans
      all = all and same[id]
    end
    for id in pairs(after) do all = all and before[id] ~= nil end
    return same, all
  end

  local function copy(of)
    local new = {}
    for key, value in pairs(of) do new[key] = value end
    return new
  end

  -- All configurations, each with its rules.
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
        same = { span = window.span, limits = {} }
        for kind = 1, KINDS do same.limits[kind] = NONE end
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
        -- `max_queue_depth` protects no provider. The larger one refuses no ticket that either configuration lets wait.
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

  -- Takes the configuration of a session, and returns its id. A configuration without a version was never in force, so it is the newest. A restarted instance brings no
  -- version either, but the group knows its configuration as long as another session has it.
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

  -- The rules that the queue order, and the counts of its entries, depend on.
  local function ordering(of)
    if not of then return '' end
    local shares = tostring(of.fair)
    return of.aging > 0 and format('%s %.0f %d %d', shares, of.aging, of.pace_worse_than, of.reserve_priority) or shares
  end

  -- Settles the rules in force after sessions have begun or ended. While the group recovers all configurations are kept, because their sessions may follow. Returns
  -- whether the order of waiting tickets has changed.
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
    if state.overrides then operators.apply(strict) end
    local before = former and fingerprint(former)
    group.install_rules(strict)
    if before ~= fingerprint(strict) then
      if former then
        local same, all_same = same_windows(former, strict)
        if not all_same then windows.change_lists(former, same) end
      end
      -- All sessions are woken to learn how long to keep charges, and how often to step. Not instances without a session: each would open one, close it when idle, and so
      -- change the configurations twice more.
      for _, owner in pairs(former and sessions:all() or {}) do
        if owner then group.wake(owner) end
      end
    end
    rules.configurations = all
    return state.size + state.behind > 0 and ordering(former) ~= ordering(strict)
  end

  -- As they are stored: a single configuration has the rules in force, where operators have changed no limit.
  function configurations.packed()
    if not rules then return '' end
    local changed = state.overrides and #state.overrides.limits > 0
    if #rules.configurations == 1 and not changed then rules.configurations[1].rules = nil end
    return pack(rules)
  end

  function configurations.version(id)
    for _, known in ipairs(rules.configurations) do
      if known.id == id then return known.version end
    end
    return 0
  end

  -- The shortest heartbeat of all configurations: how often each instance has to step.
  function configurations.heartbeat()
    local shortest = NEVER
    for _, known in ipairs(rules.configurations) do shortest = min(shortest, floor((known.rules or rules).lease / 6)) end
    return shortest
  end

  return function() all = nil end
end)
