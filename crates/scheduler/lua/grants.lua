-- Grants: the head, a deployment with room, and when there will be room. The functions of src/transition/grants.rs, in its order. `window_free` is `windows.free`, and
-- `used` is in src/transition/mod.rs.

grant = part(function(grant)
  local HEALTHY, COOLING, DUE, PROBING = 1, 2, 3, 4

  -- Whether a deployment's health admits the head; the time until which it does not, and because of which status. A9 (health): a probe that is open for longer than the
  -- deployment's cooldown time, at least a second, may be followed by another.
  local function fitness(deployment)
    local of = health:get(deployment.id)
    if not of or of.cools_until == 0 then return HEALTHY end
    if of.cools_until > state.clock then return COOLING, of.cools_until, of.status end
    local next_probe = of.probed + (of.paced and PROBE_PACE or max(deployment.cooldown, PROBE_PACE))
    if of.probe ~= 0 and next_probe > state.clock then return PROBING, next_probe end
    return DUE
  end

  -- What the head needs, and what it may use of the limits. Pacing and the reserve do not hold it while better tickets wait behind it, as they can with aging (P18).
  local function demand_of(limits, entry)
    local demand = op.demand(limits, entry)
    if queue.lifts_reserve() then demand.left = WHOLE end
    demand.paced = demand.paced and not queue.lifts_pacing()
    return demand
  end

  local function slot_free(deployment, demand)
    return deployment.concurrency == NONE or windows.open(deployment.id) < windows.part_of(deployment.concurrency, demand.left)
  end

  -- When pacing admits the head on this deployment; 0 if pacing does not hold it.
  local function pace_due(deployment, demand) return demand.paced and pace.due(deployment, demand.input, demand.output) or 0 end

  local function of_least_order(candidates)
    local least, equal, found = candidates[1].order, true, {}
    for _, deployment in ipairs(candidates) do
      if deployment.order ~= least then least, equal = min(least, deployment.order), false end
    end
    if equal then return candidates end
    for _, deployment in ipairs(candidates) do
      if deployment.order == least then found[#found + 1] = deployment end
    end
    return found
  end

  -- What happens to the head. It is granted: the deployment, and whether as its probe. It is refused: nil and the code. It waits: nil.
  local function choose(entry)
    local limits = op.limits_for(entry)
    local healthy, due, hopeless, hope, demand = {}, nil, nil, false, demand_of(limits, entry)
    for _, deployment in ipairs(limits.deployments) do
      if session.knows(entry.session, deployment.id) then
        local fit, _, status = fitness(deployment)
        if fit == COOLING and HOPELESS[status] then
          hopeless = hopeless or status
        else
          hope = true
        end
        local usable = (fit == HEALTHY or fit == DUE) and slot_free(deployment, demand) and windows.free(deployment, demand)
        if usable and pace_due(deployment, demand) <= state.clock then
          if fit == HEALTHY then
            healthy[#healthy + 1] = deployment
          elseif not due or deployment.order < due.order then
            due = deployment
          end
        end
      end
    end
    -- A retry prefers deployments that it has not tried, and takes a tried one rather than leave room idle (A8, A4).
    if #healthy > 1 and entry.tried > 0 then healthy = choice.prefer_untried(entry, healthy) end
    if #healthy > 1 then healthy = of_least_order(healthy) end
    -- Otherwise a deployment of a lower order that has cooled once would get no call before those of a higher order are full.
    if due and healthy[1] and due.order < healthy[1].order and not choice.has_tried(entry, due.id) then return due, true end
    if #healthy == 1 then return healthy[1], false end
    if #healthy > 1 then return choice.pick(healthy), false end
    if due then return due, true end
    if hopeless and not hope then return nil, hopeless end
    if not op.ever_fits(entry) then return nil, NEVER_FITS end
  end

  local function make_grant(entry, deployment, probe)
    local granted, id = group.draw(), deployment.id
    local counted, mine = #deployment.windows > 0, entry.session == step.id
    calls.add_new(entry.session, granted, id)
    local of = health:get(id)
    if probe and of then
      of.probe, of.probed = granted, state.clock
      health:put(id, of)
    end
    -- The number is new, so there is no entry to replace.
    if counted then
      windows.add_open_charge(windows.grant(granted), id, entry.input, entry.output)
      if group.paces() then pace.advance(deployment, 1, entry.input, entry.output) end
    end
    local arrival, score, start = entry.arrival, entry.score, rules.fair and fair.reported_start(entry.start) or 0
    deployment = id
    local permit = { FIELDS_grant }
    if mine then
      step.grants[#step.grants + 1] = permit
    else
      session.add_to_inbox(entry.session, { since = state.lease, grant = permit })
      state.revoke_at = min(state.revoke_at, state.lease + session.deliver_within())
    end
  end

  -- Grants or refuses heads until one has to wait (A1, A2, A4, A5).
  function grant.grant_heads()
    local done = 0
    while true do
      local entry = queue.head()
      if not entry then return end
      local deployment, verdict = choose(entry)
      if not deployment and not verdict then return end
      if done == MAX_GRANTS then
        step.more = true
        return
      end
      done = done + 1
      queue.take_first(deployment ~= nil)
      queue.count_left(entry)
      if deployment then make_grant(entry, by_id[deployment.id], verdict) else op.refuse_ticket(entry, verdict) end
    end
  end

  -- The earliest time at which the head can be granted if nothing else happens; nil: only an op can make room.
  function grant.next_free(entry)
    local limits = op.limits_for(entry)
    local best, blocked, demand = nil, {}, demand_of(limits, entry)
    for _, deployment in ipairs(limits.deployments) do
      local _, not_before = fitness(deployment)
      local usable = slot_free(deployment, demand) and windows.ever_fits(deployment, demand)
      if usable and session.knows(entry.session, deployment.id) then
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

  -- Why the head waits: the reasons of all deployments that it could be granted on, as bits (src/message.rs).
  function grant.reasons(entry)
    local limits, held = op.limits_for(entry), {}
    local demand = demand_of(limits, entry)
    for _, deployment in ipairs(limits.deployments) do
      if session.knows(entry.session, deployment.id) and windows.ever_fits(deployment, demand) then
        local fit, total = fitness(deployment), windows.total_of(deployment.id)
        if fit == COOLING then held[WAITS_FOR_COOLDOWN] = true end
        if fit == PROBING then held[WAITS_FOR_PROBE] = true end
        if not slot_free(deployment, demand) then held[WAITS_FOR_CONCURRENCY] = true end
        for i, window in ipairs(deployment.windows) do
          local requests, tokens, input, output = windows.fits_kinds(window, i, total, demand)
          if not requests then held[WAITS_FOR_REQUESTS] = true end
          if not tokens then held[WAITS_FOR_TOKENS] = true end
          if not input then held[WAITS_FOR_INPUT] = true end
          if not output then held[WAITS_FOR_OUTPUT] = true end
        end
        if pace_due(deployment, demand) > state.clock then held[WAITS_FOR_PACE] = true end
        local whole = { input = demand.input, output = demand.output, left = WHOLE }
        local room = slot_free(deployment, demand) and windows.free(deployment, demand)
        if not room and slot_free(deployment, whole) and windows.free(deployment, whole) then held[WAITS_FOR_RESERVE] = true end
      end
    end
    local reasons = 0
    for bit in pairs(held) do reasons = reasons + bit end
    return reasons
  end

  -- The use of a deployment: requests, input and output tokens in its longest window, open calls, remaining cooldown, and how long pacing holds paced tickets.
  function grant.used(deployment)
    local cost, of = { 0, 0, 0 }, health:get(deployment.id)
    if #deployment.windows > 0 then cost = { windows.used(deployment.id, #deployment.windows) } end
    local open, cooling = windows.open(deployment.id), of and max(of.cools_until - state.clock, 0) or 0
    local pace = group.paces() and max(pace.due(deployment, 0, 0) - state.clock, 0) or 0
    return { FIELDS_used }
  end
end)
