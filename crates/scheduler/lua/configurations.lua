-- Configurations: they differ during every roll-out (src/transition/configurations.rs).
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
