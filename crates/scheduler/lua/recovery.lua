-- Recovery: one for all losses (P3, P12, P13). The functions of src/transition/recovery.rs, in its order. `is_known`, `with_spans` and `by_deployment` exist only here:
-- there they are expressions, a constructor and a search.

recovery = part(function(recovery)
  -- P5 (sequence numbers): where the numbers of a new state begin: above the clock, and above what its first sender knows. If the clock is behind that, it has gone back.
  function recovery.first_number(raw)
    return raw + LEAP >= message.seen and raw + LEAP or message.seen + LEAP
  end

  -- When the recovery may end, on the lease clock, which stands still while no instance can reach the server. Fresh instances do not know which others exist, so with
  -- fresh instances alone it lasts for the lease.
  function recovery.next()
    if not state.recovery.any_rejoined then return state.recovery.latest end
    for name in pairs(state.recovery.expected) do
      if not state.recovery.confirmed[name] then return state.recovery.latest end
    end
    return state.recovery.earliest
  end

  -- When an epoch began, on the group clock of its state; 0 where that is unknown.
  local function began(epoch) return tonumber(epoch:match('^(%d+)%-')) or 0 end

  local function is_known(epoch)
    for _, known in ipairs(state.epochs) do
      if known == epoch then return true end
    end
    return epoch == ''
  end

  -- P1 (sessions and replays): an unknown epoch belongs to another state, which may have granted calls since. That is a loss like a batch gap, except for epochs that the
  -- recovery under way replaces: those began before it.
  function recovery.was_lost_since(epoch)
    local lost = not is_known(epoch) and (not state.recovery or began(epoch) > began(state.epoch))
    recovery.note_epoch(epoch)
    return lost
  end

  -- Notes another epoch that messages may still have: a former one of this state, or one of a state that its last recovery replaced.
  function recovery.note_epoch(epoch)
    if is_known(epoch) then return end
    state.epochs[#state.epochs + 1] = epoch
    if #state.epochs > EPOCHS then table.remove(state.epochs, 1) end
  end

  -- Begins a recovery: a new epoch. Queue, sessions, open calls and inboxes are void. Windows and health stay, if they are there.
  function recovery.begin(replication)
    -- A recovery that begins again still waits for the instances that the former one expected.
    local expected = state.recovery and state.recovery.expected or {}
    local recovering = { since = state.clock, began = state.lease, earliest = NEVER, latest = NEVER, expected = expected, confirmed = {}, any_rejoined = false }
    state.recovery = recovering
    recovery.note_epoch(state.epoch)
    state.epoch = format('%.0f-%s', state.clock, arguments[2])
    if replication ~= '' then state.replication = replication end
    state.last = max(state.last + step.elapsed, state.clock) + STEP
    if rules then
      -- Undelivered grants never will be delivered. After a partial write entries, totals and inboxes may contradict each other, so the entries decide.
      windows.recount_all()
    end
    for _, owner in pairs(sessions:all()) do
      if owner then recovering.expected[owner.instance] = true end
    end
    for _, records in ipairs({ sessions, answers, deployments, inbox }) do records:clear() end
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
    state.reap_at, state.revoke_at, state.refresh_at = NEVER, NEVER, 0
    state.head_notice, state.conservative, state.leftovers = { 0, '', -1 }, nil, {}
    step.recovered = true
    step.wakes['*'] = true
  end

  local function by_deployment(used)
    local by_name = {}
    for _, one in ipairs(used) do by_name[one[1]] = by_name[one[1]] or one end
    return by_name
  end

  -- The highest limit of each kind over all windows; 0 if there is none.
  local function highest_limits(deployment)
    local highest = {}
    for kind = 1, KINDS do highest[kind] = 0 end
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

  -- P13 (conservative charges): the most of each kind that unaccounted instances may have been granted: what the newest usage snapshot shows and no instance reports, and
  -- what the limits of the windows let through since then; at most the highest limit.
  local function most_granted(recovering, deployment, used)
    local highest, longest = highest_limits(deployment), deployment.windows[#deployment.windows]
    -- A window that is longer now counts charges that the snapshot does not show.
    if not used or (longest and used[3] < longest.span) then return highest end
    -- Its sender learned the snapshot at most two heartbeats after it was taken (P2), and opened its session after the loss.
    local time = recovering.usage.age + 2 * group.heartbeat()
    local reported = recovering.reported.by[deployment.id] or { 0, 0, 0 }
    local function unreported(i) return max(bounded(used[2][i], MAX_TOTAL) - reported[i], 0) end
    local requests, input, output = unreported(1), unreported(2), unreported(3)
    local most = { requests, input + output, input, output }
    for kind = 1, 4 do most[kind] = min(most[kind] + most_within(deployment, kind, time), highest[kind]) end
    return most
  end

  -- P13 (conservative charges): when all unaccounted instances have reported, what was charged for them is removed.
  local function settle_conservative()
    local conservative = state.conservative
    if not message.complete or not conservative.unaccounted[message.instance] then return end
    conservative.unaccounted[message.instance] = nil
    if next(conservative.unaccounted) then return end
    for _, drawn in ipairs(conservative.charges) do windows.remove(windows.CONSERVATIVE, drawn) end
    state.conservative = nil
  end

  -- Adds the span of each deployment's longest window under the rules that were in force then. A usage snapshot is only taken while all instances have one configuration,
  -- so those rules are its sender's.
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

  -- Receives what a message reports of the sender and of other instances, during a recovery and after it.
  function recovery.receive_report()
    local recovering, open_session = state.recovery, message.open_session[1]
    if not recovering then return settle_conservative() end
    recovering.earliest = recovering.began + 2 * group.heartbeat()
    recovering.latest = recovering.began + rules.lease
    if open_session then
      for _, name in ipairs(open_session.peers) do recovering.expected[name] = true end
      recovering.any_rejoined = recovering.any_rejoined or message.seen > 0
      for _, snapshot in ipairs(open_session.view) do
        local at = max(state.clock - bounded(snapshot.age, MAX_DURATION), 0)
        if not recovering.usage or at > recovering.usage.at then
          recovering.usage = { at = at, age = bounded(snapshot.age, MAX_DURATION), number = number(snapshot.number), used = with_spans(snapshot.used, open_session.rules) }
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
    local drawn = group.draw()
    -- More than any limit holds up no ticket longer.
    local function cut(amount) return max(min(amount, MAX_AMOUNT), 0) end
    windows.add(windows.CONSERVATIVE, drawn, deployment, cut(requests), cut(input), cut(output), at)
    return drawn
  end

  -- Charges an amount of each kind of limit.
  local function charge_amounts(deployment, amounts, at)
    local requests, both, input, output = unpack(amounts)
    -- The amount of both kinds of tokens is reached too: what it needs beyond the amounts of the kinds counts as input.
    return charge(deployment.id, requests, max(input, both - output), output, at)
  end

  -- P13 (conservative charges): an unaccounted instance may have been granted anything up to the loss, after the newest usage snapshot too.
  local function charge_limits(recovering, at, unaccounted)
    local charges, used_by = {}, recovering.usage and by_deployment(recovering.usage.used) or {}
    state.conservative = { unaccounted = unaccounted, charges = charges }
    for _, deployment in ipairs(rules.deployments) do
      charges[#charges + 1] = charge_amounts(deployment, most_granted(recovering, deployment, used_by[deployment.id]), at)
    end
  end

  -- P13 (conservative charges): what the newest usage snapshot shows as used and no instance reports was granted to unaccounted instances. A deployment that the snapshot
  -- lacks, as no instance had it then, may have been used by instances that had departed before: its limits are charged.
  local function charge_usage(usage, reported)
    local used_by = by_deployment(usage.used)
    for _, deployment in ipairs(rules.deployments) do
      local used = used_by[deployment.id]
      if not used then
        charge_amounts(deployment, highest_limits(deployment), usage.at)
      elseif #deployment.windows > 0 and used[3] > 0 then
        local sum = reported.by[deployment.id] or { 0, 0, 0 }
        local function unreported(kind) return bounded(used[2][kind], MAX_TOTAL) - sum[kind] end
        charge(deployment.id, unreported(1), unreported(2), unreported(3), usage.at)
      end
    end
  end

  -- P13 (conservative charges): sums up what is reported of the use that the newest usage snapshot shows, a part in each step (P16). Returns whether the sum is complete.
  local function sum_reported(recovering, usage)
    local reported = recovering.reported
    if not reported or reported.of ~= usage.at then
      reported = { of = usage.at, from = 0, by = {} }
      recovering.reported = reported
    end
    if reported.from then windows.sum_reported(reported, usage.number, usage.at, by_deployment(usage.used)) end
    return not reported.from
  end

  -- Ends the recovery when its time has come.
  function recovery.settle()
    local recovering = state.recovery
    if state.lease < recovery.next() or state.recount then return end
    local unaccounted, usage = {}, recovering.usage
    for name in pairs(recovering.expected) do unaccounted[name] = true end
    for name, known in pairs(instances:all()) do
      if known and known.departed >= 0 and known.departed + rules.memory > state.clock then unaccounted[name] = true end
    end
    for name in pairs(recovering.confirmed) do unaccounted[name] = nil end
    -- An instance that was known as departed when the newest usage snapshot was taken was granted nothing after it.
    local accounts_for_all = usage ~= nil
    for name in pairs(unaccounted) do
      local departed = group.instance(name).departed
      accounts_for_all = accounts_for_all and departed >= 0 and departed <= usage.at
    end
    if usage and next(unaccounted) and not sum_reported(recovering, usage) then
      step.more = true
      return
    end
    state.recovery, state.tag_floor, state.unsettled = nil, state.highest_finish, true
    if not next(unaccounted) then return end
    if accounts_for_all then
      charge_usage(usage, recovering.reported)
    else
      -- Until then unaccounted instances may have dispatched what they were granted before the loss (P9).
      charge_limits(recovering, recovering.since + group.dispatch_within(), unaccounted)
    end
    -- All instances learn it, so that no later recovery expects them.
    state.peers_version = state.peers_version + 1
    for name in pairs(unaccounted) do
      if group.instance(name).departed < 0 then group.set_departed(name, state.clock) end
    end
  end
end)
