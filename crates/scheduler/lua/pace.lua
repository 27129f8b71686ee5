-- Pacing (P18): a GCRA (generic cell rate algorithm) beside each window limit. All grants advance its time, and only paced tickets wait for it. The functions of
-- src/transition/pace.rs, in its order.

pace = part(function(pace)
  -- `due` has by deployment, for each window and each kind of limit, when the next unit would be due if all grants so far had been spread evenly.

  -- By how much an amount advances the time of a limit: as long as it lasts at the limit's rate, at most the window.
  local function increment(window, kind, amount)
    local limit = window.limits[kind]
    if limit <= 0 then return 0 end
    return floor(min(amount * window.span / limit, window.span))
  end

  -- How much a cost counts under each kind of limit.
  local function amounts(requests, input, output) return { [LIMIT_requests] = requests, [LIMIT_tokens] = input + output, [LIMIT_input_tokens] = input, [LIMIT_output_tokens] = output } end

  -- Advances the times by a grant, or by tokens above a reservation.
  function pace.advance(deployment, requests, input, output)
    local times, cost = due:get(deployment.id) or {}, amounts(requests, input, output)
    for i, window in ipairs(deployment.windows) do
      for kind, amount in ipairs(cost) do
        local at = KINDS * (i - 1) + kind
        -- An amount beyond the limit holds no ticket longer than the window does.
        times[at] = min(max(times[at] or 0, state.clock) + increment(window, kind, amount), state.clock + window.span)
      end
    end
    due:put(deployment.id, times)
  end

  -- Moves the times back by a grant that was not used, or not all of it.
  function pace.refund(deployment, requests, input, output)
    local of, cost = by_id[deployment], amounts(requests, input, output)
    local times = of and due:get(deployment)
    if not times then return end
    for i, window in ipairs(of.windows) do
      if not times[KINDS * i] then break end
      for kind, amount in ipairs(cost) do
        local at = KINDS * (i - 1) + kind
        times[at] = max(times[at] - increment(window, kind, amount), 0)
      end
    end
    due:put(deployment, times)
  end

  -- When a paced ticket of so many tokens may be granted. Its own cost is its tolerance.
  function pace.due(deployment, input, output)
    local times, cost, latest = due:get(deployment.id) or {}, amounts(1, input, output), 0
    for i, window in ipairs(deployment.windows) do
      if not times[KINDS * i] then break end
      for kind, amount in ipairs(cost) do latest = max(latest, times[KINDS * (i - 1) + kind] - increment(window, kind, amount)) end
    end
    return latest
  end
end)
