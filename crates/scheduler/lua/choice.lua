-- Which of several deployments with room the head is granted. The functions of src/transition/choice.rs, in its order; `least_used` and `shuffled` are parts of `pick`
-- there.

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

  -- The candidates that the entry's request has not tried, or all if it has tried all: bit n stands for the n-th deployment of its instance.
  function choice.prefer_untried(entry, candidates)
    local tried, untried = {}, {}
    for n, id in ipairs(deployments:get(entry.session) or {}) do
      if n <= MOST_TRIED and floor(entry.tried / 2 ^ (n - 1)) % 2 == 1 then tried[id] = true end
    end
    for _, deployment in ipairs(candidates) do
      if not tried[deployment.id] then untried[#untried + 1] = deployment end
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

  function choice.pick(candidates) return rules.strategy == USAGE_BASED and least_used(candidates) or shuffled(candidates) end
end)
