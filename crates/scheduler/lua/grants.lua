-- Grants: the head, a deployment with room, and when there will be room. The functions of src/transition/choice.rs and, from `choose` on, of src/transition/grants.rs, in
-- their order, those above `draw_below` excepted: each file here costs a step what it shares with the others. `window_free` is `windows.free`, and `used` is in
-- src/transition/mod.rs. `shuffled`, and `least_used` to `fastest`, are parts of `pick` there. Latencies are a part of the group's scalars, because few groups have some,
-- and not many.

grant = part(function(grant)
  local HEALTHY, COOLING, DUE, PROBING = 1, 2, 3, 4

  -- Whether a deployment's health admits the head; the time until which it does not, and because of which status. A9 (health): a probe that is open for longer than the
  -- deployment's cooldown time, at least a second, may be followed by another.
  local function fitness(deployment)
    local of = health.known[deployment.id]
    if of == nil then of = health:get(deployment.id) end
    if not of or of.cools_until == 0 then return HEALTHY end
    if of.cools_until > state.clock then return COOLING, of.cools_until, of.status end
    local next_probe = of.probed + (of.paced and PROBE_PACE or max(deployment.cooldown, PROBE_PACE))
    if of.probe ~= 0 and next_probe > state.clock then return PROBING, next_probe end
    return DUE
  end

  -- What the head needs, and what it may use of the limits. Pacing and the reserve do not hold it while better tickets wait behind it, as they can with aging (P18).
  local function demand_of(limits, entry)
    local demand = op.demand(limits, entry)
    if rules.aging == 0 then return demand end
    if queue.lifts_reserve() then demand.left = WHOLE end
    demand.paced = demand.paced and not queue.lifts_pacing()
    return demand
  end

  local function slot_free(deployment, demand)
    return deployment.concurrency == NONE or windows.open(deployment.id) < windows.part_of(deployment.concurrency, demand.left)
  end

  -- When pacing admits the head on this deployment; 0 if pacing does not hold it.
  local function pace_due(deployment, demand) return demand.paced and pace.due(deployment, demand.input, demand.output) or 0 end

  -- A random number below `most`, uniformly distributed: Park and Miller's generator, whose products are exact in a double.
  local function draw_below(most)
    local draws = MODULUS - 1
    most = min(most, draws)
    local even = draws - draws % most
    while true do
      step.random = step.random * MULTIPLIER % MODULUS
      local draw = step.random - 1
      -- Draws beyond the last whole multiple would make small numbers more likely.
      if draw < even then return draw % most end
    end
  end

  -- Whether the entry's request has tried a deployment: bit n stands for the n-th deployment of its instance.
  local function has_tried(entry, deployment)
    if entry.tried == 0 then return false end
    for n, id in ipairs(deployments:get(entry.session) or {}) do
      if id == deployment and n <= MOST_TRIED and floor(entry.tried / 2 ^ (n - 1)) % 2 == 1 then return true end
    end
    return false
  end

  -- The candidates that the entry's request has not tried, or all if it has tried all.
  local function prefer_untried(entry, candidates)
    local untried = {}
    for _, deployment in ipairs(candidates) do
      if not has_tried(entry, deployment.id) then untried[#untried + 1] = deployment end
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

  -- A part of its own, because simple-shuffle needs none of it.
  local preference = part(function(preference)
    -- The largest used share of a deployment's limits in millionths, then its open calls. More than the highest limit counts as that, so that the products are exact.
    local function share(deployment)
      local function of(used, limit) return limit > 0 and floor(min(used, MAX_LIMIT) * WHOLE / limit) or 0 end
      local open = windows.open(deployment.id)
      local largest = of(open, deployment.concurrency)
      for i, window in ipairs(deployment.windows) do
        local requests, input, output = windows.used(deployment.id, i)
        local limits = window.limits
        largest = max(largest, of(requests, limits[LIMIT_requests]), of(input + output, limits[LIMIT_tokens]), of(input, limits[LIMIT_input_tokens]),
          of(output, limits[LIMIT_output_tokens]))
      end
      return largest, open
    end

    local function is_fresh(latency) return latency and state.clock < latency.at + rules.latency_age end

    -- The latency of a deployment. One that is not measured comes before all others for its first call, and after them until that has been answered: one call is enough to
    -- measure it.
    local function latency_of(deployment)
      local latency = state.latencies and state.latencies[deployment.id]
      if is_fresh(latency) then return latency.mean end
      return windows.open(deployment.id) == 0 and 0 or UNMEASURED
    end

    -- The answer of a call took so long to begin.
    function preference.measured(deployment, took)
      if rules.strategy ~= LATENCY_BASED or not by_id[deployment] then return end
      local all = state.latencies or {}
      state.latencies = all
      for id, latency in pairs(all) do
        if not is_fresh(latency) then all[id] = nil end
      end
      took = max(took, 1)
      local latency = all[deployment] or { mean = took }
      latency.mean, latency.at = floor((latency.mean * (SMOOTHING - 1) + took) / SMOOTHING), state.clock
      all[deployment] = latency
    end

    function preference.least_used(candidates)
      local best, best_share, best_open
      for _, deployment in ipairs(candidates) do
        local used, open = share(deployment)
        if not best or used < best_share or (used == best_share and open < best_open) then
          best, best_share, best_open = deployment, used, open
        end
      end
      return best
    end

    -- The deployments of which this is at most `part` thousandths of the least.
    local function least(candidates, measure, part)
      local found, measures, lowest = {}, {}, nil
      for i, deployment in ipairs(candidates) do
        measures[i] = measure(deployment)
        lowest = min(lowest or measures[i], measures[i])
      end
      for i, deployment in ipairs(candidates) do
        if measures[i] * THOUSAND <= lowest * part then found[#found + 1] = deployment end
      end
      return found
    end

    function preference.least_busy(candidates) return least(candidates, function(deployment) return windows.open(deployment.id) end, THOUSAND) end

    function preference.fastest(candidates) return least(candidates, latency_of, THOUSAND + rules.latency_buffer) end
  end)

  -- Chooses one of several deployments of the same order.
  local function pick(candidates)
    if rules.strategy == USAGE_BASED then return preference.least_used(candidates) end
    if rules.strategy == LEAST_BUSY then candidates = preference.least_busy(candidates) end
    if rules.strategy == LATENCY_BASED then candidates = preference.fastest(candidates) end
    return shuffled(candidates)
  end

  -- The answer of a call took so long to begin.
  function grant.measured(deployment, took) preference.measured(deployment, took) end

  local function of_least_order(candidates)
    local least, equal = candidates[1].order, true
    for _, deployment in ipairs(candidates) do
      if deployment.order ~= least then least, equal = min(least, deployment.order), false end
    end
    if equal then return candidates end
    local found = {}
    for _, deployment in ipairs(candidates) do
      if deployment.order == least then found[#found + 1] = deployment end
    end
    return found
  end

  -- What happens to the head. It is granted: the deployment, and whether as its probe. It is refused: nil and the code. It waits: nil.
  local function choose(entry)
    if state.overrides and operators.holds(entry.key) then return nil, HELD end
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
    if #healthy > 1 and entry.tried > 0 then healthy = prefer_untried(entry, healthy) end
    if #healthy > 1 then healthy = of_least_order(healthy) end
    -- Otherwise a deployment that has cooled once would get no call before the others are full.
    if due and healthy[1] and not has_tried(entry, due.id) then
      local least = healthy[1].order
      if due.order < least or due.order == least and due.weight > 0 then return due, true end
    end
    if #healthy == 1 then return healthy[1], false end
    if #healthy > 1 then return pick(healthy), false end
    if due then return due, true end
    if hopeless and not hope then return nil, hopeless end
    if not op.ever_fits(entry) then return nil, NEVER_FITS end
  end

  local function make_grant(entry, deployment, probe)
    local granted, id = group.draw_granted(), deployment.id
    local counted, mine = #deployment.windows > 0, entry.session == step.id
    calls.add_new(entry.session, granted, id)
    local of = health:get(id)
    if probe and of then
      of.probe, of.probed = granted, state.clock
      health:put(id, of)
    end
    -- The number is new, so there is no entry to replace.
    if counted then
      windows.add_open_charge(granted, id, entry.input, entry.output)
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
      if state.overrides and state.overrides.paused then return end
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
    if state.overrides and state.overrides.paused then return nil end
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
    if state.overrides and state.overrides.paused then return WAITS_FOR_OPERATOR end
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
