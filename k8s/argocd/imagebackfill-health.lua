-- Argo CD's health of an ImageBackfill: resource.customizations.health.vitrine.io_ImageBackfill in argocd-cm.
local function find(kind)
  for _, c in ipairs((obj.status or {}).conditions or {}) do
    if c.type == kind then
      return c
    end
  end
end

if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "the controller has not seen this generation" }
end
local stalled, reconciling = find("Stalled"), find("Reconciling")
if stalled ~= nil and stalled.status == "True" then
  return { status = "Degraded", message = stalled.message }
end
if reconciling == nil or reconciling.status ~= "True" then
  return { status = "Healthy", message = obj.status.reason or "" } -- it has ended
end
-- It waits for people. A Suspended resource does not keep an application Progressing.
local waits = { AwaitingApproval = true, HashMismatch = true, GatesNotMet = true, Suspended = true }
if waits[reconciling.reason] then
  return { status = "Suspended", message = reconciling.message }
end
return { status = "Progressing", message = reconciling.message }
