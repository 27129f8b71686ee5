-- Recovery: one for all losses (P3, P12, P13).

recovery = part(function(recovery)
  local function is_known(epoch)
    for _, known in ipairs(state.epochs) do
      if known == epoch then return true end
    end
    return epoch == ''
  end

  -- Other epochs that messages may still carry: this state's former ones, and those of states that its last recovery replaced.
  function recovery.note_epoch(epoch)
    if is_known(epoch) then return end
    state.epochs[#state.epochs + 1] = epoch
    if #state.epochs > EPOCHS then table.remove(state.epochs, 1) end
  end

  -- When an epoch began, on the group clock of its state; 0 where that is unknown.
  local function began(epoch) return tonumber(epoch:match('^(%d+)%-')) or 0 end

  -- P1 (evidence of loss): an epoch that this state never had is from another state, in which others may have been granted something since. That is a loss
  -- like a missing batch, but for epochs that the recovery under way replaces: those began before it.
  function recovery.was_lost_since(epoch)
    local lost = not is_known(epoch) and (not state.recovery or began(epoch) > began(state.epoch))
    recovery.note_epoch(epoch)
    return lost
  end

  -- A new epoch. Queue, sessions, open calls and inbox are void; windows and health that are there stay.
  function recovery.begin(replication)
    -- A recovery that begins anew still waits for those whom it was waiting for.
    local expected = state.recovery and state.recovery.expected or {}
    local recovering = { since = state.clock, began = state.lease, earliest = NEVER, latest = NEVER, expected = expected, confirmed = {}, remembered = false }
    state.recovery = recovering
    recovery.note_epoch(state.epoch)
    state.epoch = format('%.0f-%s', state.clock, ARGV[2])
    if replication ~= '' then state.replication = replication end
    state.last = max(state.last + step.passed, state.clock) + STEP
    if rules then
      -- What was not delivered never will be. A write that was cut short may have left entries, totals and what was to be delivered apart: so this goes by the
      -- entries.
      windows.recount_all()
    end
    for _, owner in pairs(sessions:all()) do
      if owner then recovering.expected[owner.instance] = true end
    end
    for _, hash in ipairs({ sessions, answers, deployments, inbox }) do hash:clear() end
    store.write('UNLINK', QUEUE)
    calls.clear()
    fair.clear()
    windows.close_all()
    for name, known in pairs(instances:all()) do
      instances:put(name, known and known.departed >= 0 and { open_session = -1, session = '', departed = known.departed } or false)
    end
    for deployment, of in pairs(health:all()) do
      if of then
        of.probe = 0
        health:put(deployment, of)
      end
    end
    state.size, state.orphans, state.sweep, state.better = 0, 0, 0, { 0, 0 }
    state.reap_at, state.take_back_at, state.refresh_at = NEVER, NEVER, 0
    state.told, state.conservative, state.leftovers = { 0, '', -1 }, nil, {}
    step.recovered = true
    step.wakes['*'] = true
  end

  -- When to look again, on the lease clock: while nobody can step nobody can open a session. Fresh instances do not know who else there is: if nobody else comes, that
  -- others are slow to come back is waited for.
  function recovery.next()
    if not state.recovery.remembered then return state.recovery.latest end
    for name in pairs(state.recovery.expected) do
      if not state.recovery.confirmed[name] then return state.recovery.latest end
    end
    return state.recovery.earliest
  end

  -- Somebody who may have been granted unseen has told of it: when all have, what was charged for them goes.
  local function settle_debt()
    local conservative = state.conservative
    if not message.complete or not conservative.by[message.instance] then return end
    conservative.by[message.instance] = nil
    if next(conservative.by) then return end
    for _, key in ipairs(conservative.charges) do windows.remove(key) end
    state.conservative = nil
  end

  -- What counted in its longest window: how long that was under the rules that were in force then. A view is taken while all instances have one
  -- configuration: so those are its sender's.
  local function with_spans(used, offered)
    for _, one in ipairs(used) do
      one[3] = 0
      for _, deployment in ipairs(offered.deployments) do
        local longest = deployment.id == one[1] and deployment.windows[#deployment.windows]
        if longest and one[3] == 0 then one[3] = longest.span end
      end
    end
    return used
  end

  -- Takes what a message says about others while the group recovers, and what it settles afterwards.
  function recovery.hear()
    local recovering, open_session = state.recovery, message.open_session[1]
    if not recovering then return settle_debt() end
    recovering.earliest = recovering.began + 2 * group.heartbeat()
    recovering.latest = recovering.began + rules.lease
    if open_session then
      for _, name in ipairs(open_session.peers) do recovering.expected[name] = true end
      recovering.remembered = recovering.remembered or message.seen > 0
      for _, view in ipairs(open_session.view) do
        local at = max(state.clock - bounded(view.age, MAX_DURATION), 0)
        if not recovering.view or at > recovering.view.at then
          recovering.view = { at = at, age = bounded(view.age, MAX_DURATION), number = number(view.number), used = with_spans(view.used, open_session.rules) }
        end
      end
      for _, departed in ipairs(open_session.departed) do
        local name, age = departed[1], bounded(departed[2], MAX_DURATION)
        local known = group.instance(name)
        if age < rules.memory and known.open_session < 0 then group.set_departed(name, max(known.departed, state.clock - age, 0)) end
      end
    end
    if message.complete then recovering.confirmed[message.instance] = true end
  end

  local function charge(deployment, requests, input, output, at)
    if requests <= 0 and input <= 0 and output <= 0 then return end
    local key = windows.conservative(group.draw())
    -- More than any limit, so more would hold nothing up.
    local function cut(amount) return max(min(amount, MAX_AMOUNT), 0) end
    windows.add(key, deployment, cut(requests), cut(input), cut(output), at)
    return key
  end

  local function by_deployment(used)
    local by_name = {}
    for _, one in ipairs(used) do by_name[one[1]] = by_name[one[1]] or one end
    return by_name
  end

  -- The highest limit of each kind over all windows; 0 where there is none.
  local function highest_limits(deployment)
    local highest = { 0, 0, 0, 0 }
    for _, window in ipairs(deployment.windows) do
      for kind, limit in ipairs(window.limits) do highest[kind] = max(highest[kind], limit) end
    end
    return highest
  end

  -- The most of a kind that is granted within a time: by the window that allows least, its limit for each of its spans that begins in it.
  local function most_within(deployment, kind, time)
    local most
    for _, window in ipairs(deployment.windows) do
      local limit = window.limits[kind]
      if limit >= 0 then
        local let_through = limit * min(floor(time / max(window.span, 1)) + 1, MOST_SPANS)
        most = min(most or let_through, let_through)
      end
    end
    return most or 0
  end

  -- P13: the most that unaccounted instances may have been granted of each kind: what the newest usage snapshot shows and no instance reports, and what the limits of the
  -- windows let through since then; at most the highest limit.
  local function most_of(recovering, deployment, used)
    local highest, longest = highest_limits(deployment), deployment.windows[#deployment.windows]
    -- A window that is longer now counts charges that the snapshot does not show.
    if not used or (longest and used[3] < longest.span) then return highest end
    -- Its sender learned the snapshot at most two heartbeats after it was taken (P2), and opened its session after the loss.
    local time = recovering.view.age + 2 * group.heartbeat()
    local reported = recovering.known.by[deployment.id] or { 0, 0, 0 }
    local function unreported(i) return max(bounded(used[2][i], MAX_TOTAL) - reported[i], 0) end
    local requests, input, output = unreported(1), unreported(2), unreported(3)
    local most = { requests, input + output, input, output }
    for kind = 1, 4 do most[kind] = min(most[kind] + most_within(deployment, kind, time), highest[kind]) end
    return most
  end

  local function charge_amounts(deployment, amounts, at)
    local requests, both, input, output = unpack(amounts)
    -- Enough of each kind, and of both together: what that needs beyond the limits of the kinds counts as input.
    return charge(deployment.id, requests, max(input, both - output), output, at)
  end

  -- P13: an unaccounted instance may have been granted anything up to the loss, after the newest usage snapshot too.
  local function charge_limits(recovering, at, missing)
    local charges, used_by = {}, recovering.view and by_deployment(recovering.view.used) or {}
    state.conservative = { by = missing, charges = charges }
    for _, deployment in ipairs(rules.deployments) do
      charges[#charges + 1] = charge_amounts(deployment, most_of(recovering, deployment, used_by[deployment.id]), at)
    end
  end

  -- P13: what the newest view had in use and no snapshot reports was granted to missing instances. A deployment that the view does not know, as no instance had it then,
  -- may have been used by instances that were missing already: its limits are charged.
  local function charge_conservatively(view, known)
    local used_by = by_deployment(view.used)
    for _, deployment in ipairs(rules.deployments) do
      local used = used_by[deployment.id]
      if not used then
        charge_amounts(deployment, highest_limits(deployment), view.at)
      elseif #deployment.windows > 0 and used[3] > 0 then
        local sum = known.by[deployment.id] or { 0, 0, 0 }
        local function unknown(kind) return bounded(used[2][kind], MAX_TOTAL) - sum[kind] end
        charge(deployment.id, unknown(1), unknown(2), unknown(3), view.at)
      end
    end
  end

  -- Whether all that is reported of what the newest view shows is summed up; a part more, if not.
  local function sums_up(recovering, view)
    local known = recovering.known
    if not known or known.of ~= view.at then
      known = { of = view.at, from = 0, by = {} }
      recovering.known = known
    end
    if known.from then windows.sum_known(known, view.number, view.at, by_deployment(view.used)) end
    return not known.from
  end

  -- Ends the recovery when its time has come.
  function recovery.settle()
    local recovering = state.recovery
    if state.lease < recovery.next() or state.recount then return end
    local missing, view = {}, recovering.view
    for name in pairs(recovering.expected) do missing[name] = true end
    for name, known in pairs(instances:all()) do
      if known and known.departed >= 0 and known.departed + rules.memory > state.clock then missing[name] = true end
    end
    for name in pairs(recovering.confirmed) do missing[name] = nil end
    -- Whoever was known to have departed when the newest view was taken was granted nothing after it.
    local vouches = view ~= nil
    for name in pairs(missing) do
      local departed = group.instance(name).departed
      vouches = vouches and departed >= 0 and departed <= view.at
    end
    if view and next(missing) and not sums_up(recovering, view) then
      step.more = true
      return
    end
    state.recovery, state.tag_floor, state.unsettled = nil, state.highest_finish, true
    if not next(missing) then return end
    if vouches then charge_conservatively(view, recovering.known) else charge_limits(recovering, recovering.since + group.dispatch_within(), missing) end
    -- Told to all, so that they expect them no more.
    state.peers_version = state.peers_version + 1
    for name in pairs(missing) do
      if group.instance(name).departed < 0 then group.set_departed(name, state.clock) end
    end
  end
end)
