-- Which of several deployments with room the head is granted. The functions of src/transition/choice.rs, in its order; `least_used`, `least` and `shuffled` are parts
-- of `pick` there. Latencies are a part of the group's scalars, because few groups have some, and not many.

choice = part(function(choice)
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
  function choice.has_tried(entry, deployment)
    if entry.tried == 0 then return false end
    for n, id in ipairs(deployments:get(entry.session) or {}) do
      if id == deployment and n <= MOST_TRIED and floor(entry.tried / 2 ^ (n - 1)) % 2 == 1 then return true end
    end
    return false
  end

  -- The candidates that the entry's request has not tried, or all if it has tried all.
  function choice.prefer_untried(entry, candidates)
    local untried = {}
    for _, deployment in ipairs(candidates) do
      if not choice.has_tried(entry, deployment.id) then untried[#untried + 1] = deployment end
    end
    return #untried > 0 and untried or candidates
  end

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
  function choice.measured(deployment, took)
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

  -- Chooses one of several deployments of the same order.
  function choice.pick(candidates)
    if rules.strategy == USAGE_BASED then return least_used(candidates) end
    if rules.strategy == LEAST_BUSY then candidates = least(candidates, function(deployment) return windows.open(deployment.id) end, THOUSAND) end
    if rules.strategy == LATENCY_BASED then candidates = least(candidates, latency_of, THOUSAND + rules.latency_buffer) end
    return shuffled(candidates)
  end
end)
