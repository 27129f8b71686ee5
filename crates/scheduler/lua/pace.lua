-- Pacing: a GCRA beside each window limit. All grants advance its time; only tickets that are paced wait for it.

pace = part(function(pace)
  -- By deployment, for each window, and each kind of limit: when the next unit would be due if everything granted so far had been spread evenly.
  local due = store.hash(PACE)

  function pace.save() due:save() end

  -- Reads at once what is needed sooner or later.
  function pace.fetch() due:fetch(group.deployments()) end

  -- For how long so many are enough at a limit's rate, at most its window.
  local function worth(window, kind, amount)
    local limit = window.limits[kind]
    if limit <= 0 then return 0 end
    return floor(min(amount * window.span / limit, window.span))
  end

  -- What such a cost counts against each kind of limit.
  local function amounts(requests, input, output) return { requests, input + output, input, output } end

  -- Something was granted, or used above its reservation.
  function pace.advance(deployment, requests, input, output)
    local times, cost = due:get(deployment.id) or {}, amounts(requests, input, output)
    for i, window in ipairs(deployment.windows) do
      for kind, amount in ipairs(cost) do
        local at = 4 * i - 4 + kind
        -- What is used beyond a limit holds nobody longer than its window does.
        times[at] = min(max(times[at] or 0, state.clock) + worth(window, kind, amount), state.clock + window.span)
      end
    end
    due:put(deployment.id, times)
  end

  -- A grant was not used, or not all of it.
  function pace.take_back(deployment, requests, input, output)
    local of, cost = by_id[deployment], amounts(requests, input, output)
    local times = of and due:get(deployment)
    if not times then return end
    for i, window in ipairs(of.windows) do
      if not times[4 * i] then break end
      for kind, amount in ipairs(cost) do
        local at = 4 * i - 4 + kind
        times[at] = max(times[at] - worth(window, kind, amount), 0)
      end
    end
    due:put(deployment, times)
  end

  -- When a paced ticket of so many tokens may go: what it is worth itself is its tolerance.
  function pace.due(deployment, input, output)
    local times, cost, latest = due:get(deployment.id) or {}, amounts(1, input, output), 0
    for i, window in ipairs(deployment.windows) do
      if not times[4 * i] then break end
      for kind, amount in ipairs(cost) do latest = max(latest, times[4 * i - 4 + kind] - worth(window, kind, amount)) end
    end
    return latest
  end
end)
